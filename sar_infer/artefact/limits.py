"""Least and largest value of every number in a manifest that something is computed from, and keys that belong together.

A manifest whose digest fits may still hold a number that would take all memory or turn every score into NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

from sar_infer.artefact.manifest import Manifest
from sar_infer.errors import BundleError
from sar_infer.text import TokenizerSpec

Rule = tuple[str, float | None, float, float]
"""Field, value, least, largest; a value that is not there breaks no rule."""
_SIDE = 4096
_WIDTH = 65_536
_SCALE = 1e6
_ENERGY = 1e9
_THRESHOLDS = ("score", "energy")


def check_numbers(manifest: Manifest, source: str) -> None:
    """Raise BundleError for the first number that is out of its limits, or key that is not what it should be."""
    _check_keys(manifest, source)
    for field, value, least, largest in _rules(manifest):
        if value is not None and not least <= value <= largest:
            raise BundleError(f"{source}: field {field}: expected {least:g} to {largest:g}, got {value}")


def _check_keys(manifest: Manifest, source: str) -> None:
    found = manifest.passport.calibration
    measured = () if found is None else found.coverage
    for name in manifest.thresholds:
        if name not in _THRESHOLDS:
            raise BundleError(f"{source}: field thresholds: expected score and energy, got {name!r:.80}")
    for name in (*manifest.conformal, *measured):
        if not _is_share(name):
            raise BundleError(f"{source}: a coverage is a number between 0 and 1, got {name!r:.80}")
    if found is not None and found.coverage.keys() != found.set_size.keys():
        raise BundleError(f"{source}: field passport.calibration: coverage and set_size have different keys")
    if len({*manifest.calibrated}) < len(manifest.calibrated):
        raise BundleError(f"{source}: field calibrated: a class stands there twice")


def _rules(manifest: Manifest) -> Iterator[Rule]:
    yield "embed_dim", manifest.embed_dim, 1, _WIDTH
    yield "logit_scale", manifest.logit_scale, 1 / _SCALE, _SCALE
    yield "logit_bias", manifest.logit_bias, -_SCALE, _SCALE
    yield "temperature", manifest.temperature, 1 / _SCALE, _SCALE
    yield "thresholds.score", manifest.thresholds.get("score"), 0, 1
    yield "thresholds.energy", manifest.thresholds.get("energy"), -_ENERGY, _ENERGY
    for coverage, least in manifest.conformal.items():
        yield f"conformal.{coverage}", least, 0, 1
    look = manifest.preprocess
    yield "preprocess.size", look.size, 1, _SIDE
    yield "preprocess.fill", look.fill, 0, 255
    yield "preprocess.jpeg_margin", look.jpeg_margin, 1, _SIDE
    for mean, std in zip(look.mean, look.std, strict=True):
        yield "preprocess.mean", mean, -_SCALE, _SCALE
        yield "preprocess.std", std, 1 / _SCALE, _SCALE
    yield from _tokens("tokenizer", manifest.tokenizer)
    if manifest.reference:
        yield from _tokens("reference.tokenizer", manifest.reference.tokenizer)


def _tokens(field: str, spec: TokenizerSpec) -> Iterator[Rule]:
    yield f"{field}.context_length", spec.context_length, 2, _WIDTH
    yield f"{field}.n_prefix", spec.n_prefix, 1, _WIDTH
    yield f"{field}.max_name_tokens", spec.max_name_tokens, 1, _WIDTH


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False
