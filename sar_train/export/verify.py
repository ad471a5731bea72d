"""Checks of a bundle that need no torch: its files, its graphs, its probe and its bank.

``sar-export`` runs them before a bundle is moved into place, and ``sar-export --verify`` (`recheck`) at any time later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sar_infer.artefact.bundle import Bundle, open_bundle
from sar_infer.artefact.manifest import IMAGE_ENCODER, NAME_ENCODER, Preprocess
from sar_infer.bank.search import at_even_steps
from sar_infer.classifier import Classifier
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.encoders.self_test import self_test_cosine, self_test_image
from sar_infer.encoders.sessions import open_session
from sar_infer.images.preprocess import to_input
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import Tokenizer
from sar_train.errors import ExportError

MIN_COSINE = 0.99999
MAX_DIFFERENCE = 1e-5
BATCHES = (1, 2, 7, 33)
MOST_NAMES = 2000
"""Bank rows to encode again; of a larger bank, as many at even steps."""

Rows = npt.NDArray[np.float32]
Graph = Callable[[npt.NDArray[Any]], Rows]


@dataclass(frozen=True)
class Verification:
    """The figures of a check.

    Attributes:
        probe_cosine: between the probe's vector in the manifest and the one computed here.
        names: how many bank rows were encoded again.
        name_max_difference: the largest difference to the bank.
        batch_max_difference: between the same row in batches of 1, 2, 7 and 33, over both graphs.
    """

    probe_cosine: float
    names: int
    name_max_difference: float
    batch_max_difference: float


def open_graph(path: Path) -> Graph:
    """Return a graph with one input and one output as a function, run by onnxruntime on the CPU."""
    session = open_session(path, "cpu")
    (source,) = session.get_inputs()

    def run(batch: npt.NDArray[Any]) -> Rows:
        result: Rows = session.run(None, {source.name: batch})[0]
        return result

    return run


def generated_pixels(spec: Preprocess, seed: int) -> Rows:
    """Return the encoder's input (3, size, size) for the image that a seed stands for."""
    return to_input(Image.fromarray(self_test_image(spec.size, seed)), spec)


def verify_bundle(path: Path) -> Verification:
    """Open a bundle strictly and check that it computes what it says.

    Raises:
        BundleError: it is damaged or of another version.
        ExportError: the probe, a bank row or a batch does not come out as it should.
    """
    result = measure(open_bundle(path))
    _gate(path, "probe: cosine", result.probe_cosine, at_least=MIN_COSINE)
    _gate(path, "bank against name encoder: difference", result.name_max_difference, at_most=MAX_DIFFERENCE)
    _gate(path, "batches of different sizes: difference", result.batch_max_difference, at_most=MAX_DIFFERENCE)
    return result


def measure(bundle: Bundle) -> Verification:
    """Measure probe, bank and batches of an open bundle, without judging them.

    Raises:
        ExportError: it has no probe.
    """
    classifier = Classifier(bundle, device="cpu", cache=EmbeddingCache())
    return Verification(_probe(bundle, classifier), *_names(bundle, classifier), _batches(bundle))


def name_batches(graph: Graph, spec: TokenizerSpec, tokenizer: Tokenizer) -> float:
    """Return the largest difference between 33 names at once and fewer, each batch cut to its longest."""
    most = max(BATCHES)
    suffix = [*tokenizer.encode(spec.suffix), spec.end_token]
    room = spec.max_name_tokens + 1 - len(suffix)
    tokens = np.zeros((most, min(most, room) + len(suffix)), dtype=np.int64)
    for row, padded in enumerate(tokens):
        length = 1 + row % room
        padded[: length + len(suffix)] = [*range(300, 300 + length), *suffix]
    whole = graph(tokens)
    return float(np.max([np.abs(graph(tokens[:n, : n + len(suffix)]) - whole[:n]).max() for n in BATCHES]))


def classified(path: Path, images: Sequence[npt.NDArray[np.uint8]], names: Sequence[str]) -> Rows:
    """Return the run time's logits (N, C) when ``names`` are the only candidates."""
    classifier = Classifier(open_bundle(path), device="cpu", cache=EmbeddingCache())
    results = classifier.classify(images, names, only=True, top_k=len(names))
    answers = [{prediction.label: prediction.logit for prediction in result.predictions} for result in results]
    return np.array([[logits[name] for name in names] for logits in answers], dtype=np.float32)


def _probe(bundle: Bundle, classifier: Classifier) -> float:
    probe = bundle.manifest.probe
    if probe is None:
        raise ExportError(f"{bundle.path}: has no probe to verify")
    row = classifier.embed_images([self_test_image(bundle.manifest.preprocess.size, probe.seed)])[0]
    return self_test_cosine(probe, row)


def _names(bundle: Bundle, classifier: Classifier) -> tuple[int, float]:
    chosen = at_even_steps(len(bundle.bank.names), MOST_NAMES)
    found = classifier.embed_phrases([bundle.bank.phrases(bundle.bank.names[row]) for row in chosen])
    return len(chosen), float(np.abs(found - bundle.bank.embeddings[chosen]).max(initial=0))


def _batches(bundle: Bundle) -> float:
    """Compare both graphs on 33 inputs at once with fewer of them."""
    spec, images = bundle.manifest.preprocess, open_graph(bundle.path / IMAGE_ENCODER)
    pixels = np.stack([generated_pixels(spec, seed) for seed in range(max(BATCHES))])
    whole = images(pixels)
    differences = [np.abs(images(pixels[:n]) - whole[:n]).max() for n in BATCHES]
    names = name_batches(open_graph(bundle.path / NAME_ENCODER), bundle.manifest.tokenizer, bundle.tokenizer)
    return float(np.max([*differences, names]))


def _gate(path: Path, what: str, value: float, *, at_least: float = -np.inf, at_most: float = np.inf) -> None:
    if not at_least <= value <= at_most:
        bound = f"at least {at_least}" if at_most == np.inf else f"at most {at_most}"
        raise ExportError(f"{path}: {what} {value:.7g}, expected {bound}")
