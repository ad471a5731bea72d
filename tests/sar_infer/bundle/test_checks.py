from __future__ import annotations

import dataclasses
import re

import pytest
from support.bundles import PREPROCESS, example_manifest

from sar_infer.bundle.checks import check_numbers
from sar_infer.bundle.manifest import Calibration, Manifest, Quality
from sar_infer.errors import BundleError


def measured(coverage: dict[str, float], set_size: dict[str, float]) -> Quality:
    return Quality(calibration=Calibration("x", 1, 1, False, 0, 0, 0, 0, coverage, set_size))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"thresholds": {"luck": 0.5}}, "luck"),
        ({"quality": measured({"1.5": 0.9}, {"1.5": 2.0})}, "'1.5'"),
        ({"quality": measured({"0.9": 0.9}, {})}, "quality.calibration"),
        ({"calibrated": ("cup", "mug", "cup")}, "calibrated"),
        ({"preprocess": dataclasses.replace(PREPROCESS, std=(1.0, 0.0, 1.0))}, "preprocess.std"),
    ],
)
def test_a_contradiction_is_named(changes: dict, named: str) -> None:
    with pytest.raises(BundleError, match=f"^here: .*{named}"):
        check_numbers(dataclasses.replace(example_manifest(), **changes), "here")


@pytest.mark.parametrize("fitted", [{"temperature": 1.0}, {"thresholds": {"score": 0.1}}, {"calibrated": ("red",)}])
def test_a_calibration_names_a_branch_that_the_bundle_has(fitted: dict) -> None:
    for branch in (None, "head", "statistics"):
        with pytest.raises(BundleError, match="calibrated_for"):
            check_numbers(dataclasses.replace(example_manifest(), calibrated_for=branch, **fitted), "here")


def limited(field: str, value: float) -> Manifest:
    """Return a manifest with a value in a field, such as ``preprocess.size`` or ``thresholds.score``."""
    manifest = dataclasses.replace(example_manifest(), calibrated_for="text")
    first, *rest = field.split(".")
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
        ("temperature", 1e-6, 1e6),
        ("thresholds.score", 0, 1),
        ("thresholds.energy", -1e9, 1e9),
        ("conformal.0.9", 0, 1),
        ("preprocess.size", 1, 4096),
        ("preprocess.fill", 0, 255),
        ("preprocess.mean", -1e6, 1e6),
        ("preprocess.std", 1e-6, 1e6),
        ("tokenizer.context_length", 2, 65_536),
        ("tokenizer.n_prefix", 1, 65_536),
        ("tokenizer.max_name_tokens", 1, 65_536),
    ],
)
def test_limits_of_every_number(field: str, least: float, largest: float) -> None:
    for value in (least, largest):
        check_numbers(limited(field, value), "here")
    step = 1 if isinstance(least, int) and field not in ("thresholds.score", "conformal.0.9") else 1e-7
    for value in (least - step, largest + step * max(1, abs(largest))):
        with pytest.raises(BundleError, match=re.escape(field)):
            check_numbers(limited(field, value), "here")


@pytest.mark.parametrize("coverage", ["0", "1", "0.0", "nan", "most"])
def test_a_coverage_lies_between_0_and_1(coverage: str) -> None:
    with pytest.raises(BundleError, match=f"'{coverage}'"):
        check_numbers(dataclasses.replace(example_manifest(), conformal={coverage: 0.5}), "here")
