"""Check what a bundle's graphs compute now, without any photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sar_infer.artefact.bundle import Bundle
from sar_infer.artefact.manifest import NAME_ENCODER, REFERENCE_ENCODER, Manifest, Variant
from sar_infer.bank.search import at_even_steps
from sar_infer.classifier import Classifier
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.encoders.encoders import NameEncoder
from sar_infer.encoders.self_test import self_test_cosine
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import encode_name
from sar_train.export.recheck.finding import Finding, at_least, at_most, same
from sar_train.export.verify import (
    BATCHES,
    MAX_DIFFERENCE,
    MIN_COSINE,
    MOST_NAMES,
    Rows,
    generated_pixels,
    measure,
    name_batches,
    open_graph,
)

LOST_COSINE = 0.005
"""Accepted loss of a smaller graph's cosine to fp32: on the probe image, and in the mean over other samples."""
LOST_AGREEMENT = 0.02
"""Accepted loss of its share of equal answers."""


def checks(bundle: Bundle) -> Iterator[Finding]:
    """Check the probe, bank, batches, reference encoder, head and smaller graphs."""
    found = measure(bundle)
    yield at_least("probe image, cosine", found.probe_cosine, MIN_COSINE, 1.0)
    yield at_most(f"{found.names:,} bank rows made again, difference", found.name_max_difference, MAX_DIFFERENCE)
    yield at_most(f"batches of {_listed(BATCHES)}, difference", found.batch_max_difference, MAX_DIFFERENCE)
    if bundle.manifest.reference is not None:
        graph = open_graph(bundle.path / REFERENCE_ENCODER)
        difference = name_batches(graph, bundle.manifest.reference.tokenizer, bundle.tokenizer)
        yield at_most("reference encoder, batches, difference", difference, MAX_DIFFERENCE)
    if bundle.head is not None:
        classifier = Classifier(bundle, device="cpu", cache=EmbeddingCache())
        branch = classifier.class_set(bundle.head.names, only=True).branch
        yield same("what answers for the head's classes", branch, "head+text")
    yield from _on_the_probe(bundle)
    yield from _name_variants(bundle)


def image_variants(manifest: Manifest) -> dict[str, Variant]:
    """Return the smaller image encoders by precision."""
    return {name: kept.image for name, kept in manifest.precisions.items() if kept.image is not None}


def agreement(bundle: Bundle, what: str, variant: Variant, rows: Rows, exact: Rows) -> Iterator[Finding]:
    """Compare a smaller graph's rows (N, D) with fp32's for the same inputs, beside what its export found.

    The samples differ from those of the export, so each figure may lose a little.
    """
    bank = bundle.bank.embeddings[at_even_steps(len(bundle.bank.names), MOST_NAMES)]
    cosine = float((rows * exact).sum(axis=1).mean())
    yield at_least(f"{what}, mean cosine", cosine, variant.mean_cosine - LOST_COSINE, variant.mean_cosine)
    if not len(bank):
        return
    share = float(((rows @ bank.T).argmax(axis=1) == (exact @ bank.T).argmax(axis=1)).mean())
    lost = max(LOST_AGREEMENT, 2 * float(np.sqrt(variant.top1_agreement * (1 - variant.top1_agreement) / len(rows))))
    yield at_least(f"{what}, same class", share, variant.top1_agreement - lost, variant.top1_agreement)


def _on_the_probe(bundle: Bundle) -> Iterator[Finding]:
    """Check each smaller image encoder on the image whose cosine was noted when it was made."""
    probe = bundle.manifest.probe
    for precision, variant in image_variants(bundle.manifest).items():
        if probe is not None and variant.probe_cosine is not None:
            pixels = generated_pixels(bundle.manifest.preprocess, probe.seed)[np.newaxis]
            now, then = self_test_cosine(probe, open_graph(bundle.path / variant.file)(pixels)[0]), variant.probe_cosine
            yield at_least(f"{precision} image encoder, probe image, cosine", now, then - LOST_COSINE, then)


def _name_variants(bundle: Bundle) -> Iterator[Finding]:
    """Check each smaller name encoder on classes of the bank, each by its first phrase."""
    kept = {name: found.name for name, found in bundle.manifest.precisions.items() if found.name is not None}
    if not kept or not bundle.bank.names:
        return
    places = at_even_steps(len(bundle.bank.names), MOST_NAMES)
    names = [bundle.bank.phrases(bundle.bank.names[place])[0] for place in places]
    exact = encoded(bundle, NAME_ENCODER, bundle.manifest.tokenizer, names)
    for precision, variant in kept.items():
        rows = encoded(bundle, variant.file, bundle.manifest.tokenizer, names)
        yield from agreement(bundle, f"{precision} name encoder, {len(names):,} names", variant, rows, exact)


def encoded(bundle: Bundle, file: str, spec: TokenizerSpec, names: Sequence[str]) -> Rows:
    """Return the rows (N, D) that one of the bundle's name encoders gives.

    Raises:
        ClassNameError: a name does not fit.
    """
    encoder = NameEncoder(bundle.path / file, bundle.manifest.embed_dim, spec.end_token, "cpu")
    return encoder.encode([encode_name(bundle.tokenizer, spec, name) for name in names])


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
