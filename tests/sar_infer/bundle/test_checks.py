from __future__ import annotations

import dataclasses
import re

import pytest
from support.bundles import example_manifest

from sar_infer.bundle.checks import check_numbers
from sar_infer.bundle.manifest import Manifest
from sar_infer.errors import BundleError


def limited(field: str, value: float) -> Manifest:
    """Return a manifest with a value in a field, such as ``preprocess.size`` or ``thresholds.score``."""
    manifest = example_manifest()
    first, *rest = field.split(".")
    if field == "embed_dim":
        stored = dataclasses.replace(manifest.self_test, embedding=(0.0,) * max(0, int(value)))
        return dataclasses.replace(manifest, embed_dim=int(value), self_test=stored)
    if not rest:
        return dataclasses.replace(manifest, **{first: value})
    if first in ("thresholds", "conformal"):
        return dataclasses.replace(manifest, **{first: {".".join(rest): value}})
    several = (value,) * 3 if rest[0] in ("mean", "std") else value
    return dataclasses.replace(manifest, **{first: dataclasses.replace(getattr(manifest, first), **{rest[0]: several})})


@pytest.mark.parametrize(
    ("field", "least", "largest"),
    [
        ("embed_dim", 1, 65_536),
        ("logit_scale", 1e-6, 1e6),
        ("logit_bias", -1e6, 1e6),
        ("preprocess.size", 1, 4096),
        ("preprocess.fill", 0, 255),
        ("preprocess.mean", -1e6, 1e6),
        ("preprocess.std", 1e-6, 1e6),
        ("tokenizer.context_length", 2, 65_536),
        ("tokenizer.n_prefix", 1, 65_536),
        ("tokenizer.max_name_tokens", 1, 65_536),
        ("self_test.seed", 0, 2**32),
    ],
)
def test_limits_of_every_number(field: str, least: float, largest: float) -> None:
    for value in (least, largest):
        check_numbers(limited(field, value), "here")
    step = 1 if isinstance(least, int) and field not in ("thresholds.score", "conformal.0.9") else 1e-7
    for value in (least - step, largest + step * max(1, abs(largest)), float("nan")):
        if value == value or field != "embed_dim":
            with pytest.raises(BundleError, match=re.escape(field)):
                check_numbers(limited(field, value), "here")
