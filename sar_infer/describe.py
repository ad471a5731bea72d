"""A bundle in a few lines for people: what it is, what it takes, how good it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from sar_infer.artefact import Passport, Scores
from sar_infer.bundle import Bundle


def describe(bundle: Bundle) -> str:
    """Text that ends with a line break."""
    return "".join(f"{label:<14}{value}\n" for label, value in _lines(bundle))


def _lines(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    weights = ", ".join(f"{name} {weight:g}" for name, weight in manifest.regularisers.items())
    yield "bundle", str(bundle.path)
    yield "backbone", manifest.backbone
    yield "method", manifest.method + (f" with {weights}" if weights else "")
    if manifest.template:
        yield "template", manifest.template
    yield "classes", f"{len(bundle.bank.names)} in the bank"
    if bundle.head is not None:
        yield (
            "head",
            f"for {len(bundle.head.names)} of them, with a share of {bundle.head.mix:g} beside the text branch",
        )
    yield "embedding", f"{manifest.embed_dim} numbers, logit scale {manifest.logit_scale:g}"
    yield "image", f"{manifest.preprocess.size} pixels, {manifest.preprocess.resize_mode}"
    yield "class name", f"at most {manifest.tokenizer.max_name_tokens} tokens"
    yield from _quality(manifest.passport)
    yield "digest", manifest.digest
    yield "encoder", manifest.encoder_digest
    yield "created", manifest.provenance.created
    yield "by", manifest.provenance.command


def _quality(passport: Passport) -> Iterator[tuple[str, str]]:
    if passport.dataset:
        parts = (passport.dataset, passport.protocol, f"{passport.shots} shots" if passport.shots else None)
        yield "measured on", ", ".join(part for part in parts if part)
    for label, scores in (("zero-shot", passport.zero_shot), ("this bundle", passport.metrics)):
        if scores != Scores():
            yield label, _scores(scores)
    for note in passport.notes:
        yield "note", note


def _scores(scores: Scores) -> str:
    names = {"base_accuracy": "base", "new_accuracy": "new", "harmonic_mean": "harmonic mean"}
    known = {names[field]: value for field, value in dataclasses.asdict(scores).items() if value is not None}
    return ", ".join(f"{name} {value:.1f} %" for name, value in known.items())
