"""Compare rows of two encoders for the same inputs, and what a bundle's graphs compute now with its manifest and bank.

The one place that defines "the same": an export compares its graphs with torch, `checks` compares a bundle with what it
was, and a smaller graph is compared with the float32 one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.encoders.embedder import Embedder
from sar_infer.encoders.encoders import Encoder
from sar_infer.encoders.self_test import PARITY, least_cosine, self_test_cosine, self_test_pixels
from sar_infer.text.tokenizer import token_row

MIN_COSINE = PARITY
MAX_DIFFERENCE = 1e-5
"""Largest difference between numbers in their rows."""
BATCHES = (1, 2, 7, 33)
_MOST_NAMES = 2000
"""Bank rows to encode again; of a larger bank, as many at even steps."""
_PIECE = 8

T = TypeVar("T")
Graph = Callable[[npt.NDArray[Any]], Floats]
"""Unit rows (N, D) for N inputs."""
Logits = Callable[[Floats], Floats]
"""(N, C) for unit rows (N, D)."""


@dataclass(frozen=True)
class Check:
    """One figure and its bound, which NaN never passes."""

    what: str
    value: float
    kind: Literal["at least", "at most"]
    bound: float

    @property
    def passed(self) -> bool:
        """Return True if the value is within its bound."""
        return self.value >= self.bound if self.kind == "at least" else self.value <= self.bound

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.7g}, expected {self.kind} {self.bound:.6g}"


def checks(bundle: Bundle) -> list[Check]:
    """Check the self-test, the bank's rows, batches and smaller graphs of a bundle that has been opened.

    Raises:
        BundleError: onnxruntime does not run one of its graphs.
    """
    manifest = bundle.manifest

    def graph(file: str, port: str) -> Graph:
        return functools.partial(Encoder(bundle.path / file, manifest.embed_dim, "cpu").run, port)

    def self_test(file: str) -> float:
        pixels = self_test_pixels(manifest.preprocess, manifest.self_test.seed)[np.newaxis]
        return self_test_cosine(manifest.self_test, graph(file, "pixels")(pixels)[0])

    entries = [] if manifest.switched else [*bundle.bank.entries.values()]  # the name encoder did not make them all
    entries = entries[:: -(-len(entries) // _MOST_NAMES) or 1]
    embedder = Embedder(bundle, "cpu", None, spin=True, cache=EmbeddingCache(), precision="fp32")
    rows = embedder.embed_phrases([entry.texts for entry in entries])
    stored = np.array([entry.embedding for entry in entries], np.float32).reshape(rows.shape)
    pixels = np.stack([self_test_pixels(manifest.preprocess, seed) for seed in range(max(BATCHES))])
    differences = [batch_difference(graph(IMAGE_ENCODER, "pixels"), pixels)]
    if (spec := manifest.tokenizer) is not None:
        lead, one, tail = map(bundle.tokenizer.encode, (spec.prefix, "dog", spec.suffix))
        room = spec.max_name_tokens - len(lead) - len(tail)
        lengths = [1 + row % room for row in range(max(BATCHES))]
        tokens = [token_row(spec, [*lead, *islice(cycle(one), length), *tail]) for length in lengths]
        padded = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
        for row, values in zip(padded, tokens, strict=True):
            row[: len(values)] = values
        cut = len(tail) + 1 if spec.form == "prompt" else None
        differences.append(batch_difference(graph(NAME_ENCODER, "tokens"), padded, cut))
    return [
        Check("self-test image, cosine", self_test(IMAGE_ENCODER), "at least", MIN_COSINE),
        Check(
            f"{len(entries):,} bank rows made again, difference",
            largest_difference(rows, stored),
            "at most",
            MAX_DIFFERENCE,
        ),
        Check("batches of 1, 2, 7 and 33, difference", float(np.max(differences)), "at most", MAX_DIFFERENCE),
        *(
            Check(f"{name} self-test image, cosine", self_test(variant.file), "at least", least_cosine(variant))
            for name, variant in manifest.precisions.items()
        ),
    ]


def same_answer(rows: Floats, reference: Floats, logits: Logits, tie: float = 0.0) -> npt.NDArray[np.bool_]:
    """Return for each of N samples (N,) whether both rows choose the same class.

    Args:
        rows: (N, D) unit rows of the encoder that is checked.
        reference: (N, D) of the other, for the same inputs.
        logits: choose the best class.
        tie: A class is the best one too if its logit for the reference row is at most this much below the largest.
    """
    same = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), _PIECE):  # a bank may have many classes
        piece = slice(start, start + _PIECE)
        chosen, expected = logits(rows[piece]).argmax(1), logits(reference[piece])
        same[piece] = expected[np.arange(len(chosen)), chosen] >= expected.max(1) - tie
    return same


def largest_difference(values: Floats, reference: Floats) -> float:
    """Return the largest difference between numbers of two arrays of one shape: 0 if they are empty, NaN if one is."""
    return float(np.abs(values - reference).max(initial=0))


def batch_difference(graph: Graph, inputs: npt.NDArray[Any], cut: int | None = None) -> float:
    """Return the largest difference between rows of 33 inputs in one batch and of 1, 2, 7 and 33 in a batch.

    Args:
        graph: the encoder.
        inputs: 33 of them; the first axis is the batch.
        cut: For tokens (33, T) of which row i uses at most the first ``i + 1 + cut``: batches are cut to their longest.
    """
    whole = graph(inputs)
    batches = [inputs[:n] if cut is None else inputs[:n, : n + cut] for n in BATCHES]
    return float(np.max([largest_difference(graph(batch), whole[: len(batch)]) for batch in batches]))


def in_batches(items: Sequence[T], most: int = max(BATCHES)) -> Iterator[Sequence[T]]:
    """Yield pieces of 1, 2, 7 and 33, then of ``most``."""
    start, sizes = 0, [*BATCHES]
    while start < len(items):
        size = sizes.pop(0) if sizes else most
        yield items[start : start + size]
        start += size
