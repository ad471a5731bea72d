"""Compare rows of two encoders for the same inputs; the one place that says what "the same" means.

An export compares its graphs with torch, a verification compares a bundle with what it gave when it was made, and a
smaller graph is compared with the float32 one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.encoders.sessions import open_encoder
from sar_infer.errors import BundleError, reason_of

MIN_COSINE = 0.99999
"""Least cosine between rows of float32 encoders that are the same."""
MAX_DIFFERENCE = 1e-5
"""Largest difference between numbers in their rows."""
BATCHES = (1, 2, 7, 33)
_PIECE = 8

T = TypeVar("T")
Graph = Callable[[npt.NDArray[Any]], Floats]
"""Unit rows (N, D) for N inputs."""
Logits = Callable[[Floats], Floats]
"""(N, C) for unit rows (N, D)."""


@dataclass(frozen=True)
class Figures:
    """How the rows of one encoder compare with those of another for the same samples.

    Attributes:
        samples: how many.
        min_cosine: the smallest between both encoders' rows.
        mean_cosine: their mean.
        top1_agreement: share of samples, 0..1, whose best class is the same; NaN without classes.
    """

    samples: int
    min_cosine: float
    mean_cosine: float
    top1_agreement: float


def compare_rows(rows: Floats, reference: Floats, logits: Logits | None, tie: float = 0.0) -> Figures:
    """Compare unit rows (N, D) with those of a reference, N at least 1.

    Args:
        rows: of the encoder that is checked.
        reference: of the other, for the same inputs.
        logits: choose the best class; None if there are no classes.
        tie: A class is the best one too if its logit for the reference row is at most this much below the largest.
    """
    cosines = (rows * reference).sum(1)
    agreement = np.nan if logits is None else float(same_answer(rows, reference, logits, tie).mean())
    return Figures(len(rows), float(cosines.min()), float(cosines.mean()), agreement)


def same_answer(rows: Floats, reference: Floats, logits: Logits, tie: float = 0.0) -> npt.NDArray[np.bool_]:
    """Return for each of N samples (N,) whether both rows choose the same class; arguments as in ``compare_rows``."""
    same = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), _PIECE):  # a bank may have a million classes
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


def open_graph(path: Path) -> Graph:
    """Return a graph with one input and one output as a function, run by onnxruntime on the CPU.

    The function raises BundleError for a graph that takes something else than it is given.

    Raises:
        BundleError: onnxruntime does not accept the graph.
    """
    session = open_encoder(path, "cpu")
    (source,) = session.get_inputs()

    def run(batch: npt.NDArray[Any]) -> Floats:
        try:
            result: Floats = session.run(None, {source.name: batch})[0]
        except Exception as error:  # onnxruntime's own
            raise BundleError(f"{path}: does not take what this encoder is given: {reason_of(error)}") from None
        return result

    return run
