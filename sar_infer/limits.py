"""Least and largest value of every number in a manifest that something is computed from.

A manifest whose digest fits may still hold a number that would take all memory or turn every score into NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

from sar_infer.artefact import Manifest, TokenizerSpec
from sar_infer.errors import BundleError

Rule = tuple[str, float | None, float, float]
"""Field, value, least, largest; a value that is not there breaks no rule."""
_SIDE = 4096
_WIDTH = 65_536
_SCALE = 1e6


def check_numbers(manifest: Manifest, source: str) -> None:
    """Raise BundleError for the first number that is out of its limits."""
    for field, value, least, largest in _rules(manifest):
        if value is not None and not least <= value <= largest:
            raise BundleError(f"{source}: field {field}: expected {least:g} to {largest:g}, got {value}")


def _rules(manifest: Manifest) -> Iterator[Rule]:
    yield "embed_dim", manifest.embed_dim, 1, _WIDTH
    yield "logit_scale", manifest.logit_scale, 1 / _SCALE, _SCALE
    yield "logit_bias", manifest.logit_bias, -_SCALE, _SCALE
    yield "temperature", manifest.temperature, 1 / _SCALE, _SCALE
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
