"""Check what a bundle's graphs compute now, without any photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sar_infer._arrays import Floats, at_even_steps
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER, Manifest, Variant
from sar_infer.bundle_check.comparison import (
    BATCHES,
    MAX_DIFFERENCE,
    MIN_COSINE,
    Graph,
    Logits,
    batch_difference,
    compare_rows,
    largest_difference,
    open_graph,
)
from sar_infer.bundle_check.finding import Check, at_least, at_most, same
from sar_infer.classifier import Classifier
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.encoders.encoders import NameEncoder
from sar_infer.encoders.self_test import self_test_cosine, self_test_pixels
from sar_infer.errors import BundleError
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import Tokenizer, encode_name

MOST_NAMES = 2000
"""Bank rows to encode again; of a larger bank, as many at even steps."""
LOST_COSINE = 0.005
"""Accepted loss of a smaller graph's cosine to fp32: on the self-test image, and in the mean over other samples."""
LOST_AGREEMENT = 0.02
"""Accepted loss of its share of equal answers."""


def checks(bundle: Bundle) -> Iterator[Check]:
    """Check the self-test, bank, batches, head and smaller graphs.

    Raises:
        BundleError: the bundle has no self-test, or onnxruntime does not run one of its graphs.
    """
    manifest, images = bundle.manifest, open_graph(bundle.path / IMAGE_ENCODER)
    cosine = self_test_of(manifest, images)
    if cosine is None:
        raise BundleError(f"{bundle.path}: has no self-test to verify; export it again")
    yield at_least("self-test image, cosine", cosine, MIN_COSINE, 1.0)
    classifier = Classifier(bundle, device="cpu", cache=EmbeddingCache())
    chosen = at_even_steps(len(bundle.bank.names), MOST_NAMES)
    rows = classifier.embed_phrases([bundle.bank.entry(bundle.bank.names[row]).texts for row in chosen])
    difference = largest_difference(rows, bundle.bank.embeddings[chosen])
    yield at_most(f"{len(chosen):,} bank rows made again, difference", difference, MAX_DIFFERENCE)
    pixels = np.stack([self_test_pixels(manifest.preprocess, seed) for seed in range(max(BATCHES))])
    names = name_batches(open_graph(bundle.path / NAME_ENCODER), manifest.tokenizer, bundle.tokenizer)
    difference = float(np.max([batch_difference(images, pixels), names]))
    yield at_most("batches of 1, 2, 7 and 33, difference", difference, MAX_DIFFERENCE)
    if bundle.head is not None:
        branch = classifier.class_set(bundle.head.names, only=True).branch
        yield same("what answers for the head's classes", branch, "head+text")
    yield from _self_tests(bundle)
    yield from _name_variants(bundle)


def self_test_of(manifest: Manifest, encode: Graph) -> float | None:
    """Return the cosine between the self-test's stored vector and the one that a graph gives now; None without one."""
    stored = manifest.self_test
    if stored is None:
        return None
    return self_test_cosine(stored, encode(self_test_pixels(manifest.preprocess, stored.seed)[np.newaxis])[0])


def name_batches(graph: Graph, spec: TokenizerSpec, tokenizer: Tokenizer) -> float:
    """Return the largest difference between 33 names at once and fewer, each batch cut to its longest."""
    most = max(BATCHES)
    suffix = [*tokenizer.encode(spec.suffix), spec.end_token]
    room = spec.max_name_tokens + 1 - len(suffix)
    tokens = np.zeros((most, min(most, room) + len(suffix)), dtype=np.int64)
    for row, padded in enumerate(tokens):
        length = 1 + row % room
        padded[: length + len(suffix)] = [*range(300, 300 + length), *suffix]
    return batch_difference(graph, tokens, len(suffix))


def image_variants(manifest: Manifest) -> dict[str, Variant]:
    """Return the smaller image encoders by precision."""
    return {name: graphs.image for name, graphs in manifest.precisions.items() if graphs.image is not None}


def agreement(
    bundle: Bundle, label: str, variant: Variant, rows: Floats, exact: Floats, logits: Logits | None = None
) -> Iterator[Check]:
    """Compare a smaller graph's rows (N, D) with fp32's for the same inputs, beside what its export found.

    The samples differ from those of the export, so each figure may lose a little. Both choose a class by ``logits``,
    if that is given, else by the cosines to some of the bank's rows.
    """
    bank = bundle.bank.embeddings[at_even_steps(len(bundle.bank.names), MOST_NAMES)]
    figures = compare_rows(rows, exact, (logits or (lambda sample: sample @ bank.T)) if len(bank) else None)
    yield at_least(f"{label}, mean cosine", figures.mean_cosine, variant.mean_cosine - LOST_COSINE, variant.mean_cosine)
    if not len(bank):
        return
    then = variant.top1_agreement
    lost = max(LOST_AGREEMENT, 2 * float(np.sqrt(then * (1 - then) / figures.samples)))
    yield at_least(f"{label}, same class", figures.top1_agreement, then - lost, then)


def _self_tests(bundle: Bundle) -> Iterator[Check]:
    """Check each smaller image encoder on the image whose cosine was noted when it was made."""
    for precision, variant in image_variants(bundle.manifest).items():
        if (then := variant.self_test_cosine) is None:
            continue
        now = self_test_of(bundle.manifest, open_graph(bundle.path / variant.file))
        if now is not None:
            yield at_least(f"{precision} image encoder, self-test image, cosine", now, then - LOST_COSINE, then)


def _name_variants(bundle: Bundle) -> Iterator[Check]:
    """Check each smaller name encoder on classes of the bank, each by its first phrase."""
    variants = {name: graphs.name for name, graphs in bundle.manifest.precisions.items() if graphs.name is not None}
    if not variants or not bundle.bank.names:
        return
    rows = at_even_steps(len(bundle.bank.names), MOST_NAMES)
    names = [bundle.bank.entry(bundle.bank.names[row]).texts[0] for row in rows]
    exact = _encoded(bundle, NAME_ENCODER, names)
    for precision, variant in variants.items():
        smaller = _encoded(bundle, variant.file, names)
        yield from agreement(bundle, f"{precision} name encoder, {len(names):,} names", variant, smaller, exact)


def _encoded(bundle: Bundle, file: str, names: Sequence[str]) -> Floats:
    """Return the rows (N, D) that one of the bundle's name encoders gives."""
    spec = bundle.manifest.tokenizer
    encoder = NameEncoder(bundle.path / file, bundle.manifest.embed_dim, spec.end_token, "cpu")
    return encoder.encode([encode_name(bundle.tokenizer, spec, name) for name in names])
