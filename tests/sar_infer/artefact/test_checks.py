from __future__ import annotations

import dataclasses
import re

import pytest
from support.bundles import PREPROCESS, SPEC, example_manifest

from sar_infer.artefact.checks import check_numbers
from sar_infer.artefact.manifest import Calibration, Manifest, Quality, Reference
from sar_infer.errors import BundleError


def measured(coverage: dict[str, float], set_size: dict[str, float]) -> Quality:
    return Quality(calibration=Calibration("x", 1, 1, False, 0, 0, 0, 0, coverage, set_size))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 0}, "field embed_dim: expected 1 to 65536, got 0"),
        ({"embed_dim": 10**400}, "field embed_dim: expected 1 to 65536, got 1000"),
        ({"logit_scale": 1e308}, "field logit_scale: expected 1e-06 to 1e.06, got 1e.308"),
        ({"logit_scale": 0.0}, "field logit_scale"),
        ({"logit_bias": float("-inf")}, "field logit_bias"),
        ({"temperature": float("nan")}, "field temperature: expected 1e-06 to 1e.06, got nan"),
        ({"thresholds": {"score": 1.5}}, "field thresholds.score: expected 0 to 1, got 1.5"),
        ({"thresholds": {"luck": 0.5}}, "field thresholds: expected score and energy, got 'luck'"),
        ({"conformal": {"0.9": -0.1}}, "field conformal.0.9: expected 0 to 1"),
        ({"conformal": {"most": 0.1}}, "a coverage is a number between 0 and 1, got 'most'"),
        ({"quality": measured({"1.5": 0.9}, {"1.5": 2.0})}, "a coverage is a number between 0 and 1, got '1.5'"),
        ({"quality": measured({"0.9": 0.9}, {})}, "field quality.calibration: coverage and set_size"),
        ({"calibrated": ("cup", "mug", "cup")}, "field calibrated: a class is listed twice"),
        ({"preprocess": dataclasses.replace(PREPROCESS, size=100_000)}, "field preprocess.size: expected 1 to 4096"),
        ({"preprocess": dataclasses.replace(PREPROCESS, fill=256)}, "field preprocess.fill"),
        ({"preprocess": dataclasses.replace(PREPROCESS, std=(1.0, 0.0, 1.0))}, "field preprocess.std"),
        ({"preprocess": dataclasses.replace(PREPROCESS, jpeg_margin=0.5)}, "field preprocess.jpeg_margin"),
        ({"tokenizer": dataclasses.replace(SPEC, max_name_tokens=-5)}, "field tokenizer.max_name_tokens"),
        (
            {"reference": Reference("a {}.", dataclasses.replace(SPEC, n_prefix=10**9))},
            "field reference.tokenizer.n_prefix",
        ),
    ],
)
def test_a_number_out_of_its_limits_is_named(changes: dict, message: str) -> None:
    with pytest.raises(BundleError, match=f"^here: {message}"):
        check_numbers(dataclasses.replace(example_manifest(), **changes), "here")


def test_what_bundles_have_is_within_them() -> None:
    check_numbers(example_manifest(), "here")
    check_numbers(dataclasses.replace(example_manifest(), temperature=1.0, calibrated_for="text"), "here")
    check_numbers(dataclasses.replace(example_manifest(), logit_bias=-12.9), "here")


@pytest.mark.parametrize("fitted", [{"temperature": 1.0}, {"thresholds": {"score": 0.1}}, {"calibrated": ("red",)}])
def test_a_calibration_names_a_branch_that_the_bundle_has(fitted: dict) -> None:
    for branch in (None, "head", "statistics"):
        with pytest.raises(BundleError, match="^here: field calibrated_for: "):
            check_numbers(dataclasses.replace(example_manifest(), calibrated_for=branch, **fitted), "here")


def limited(field: str, value: float) -> Manifest:
    """Return a manifest with a value in a field, such as ``preprocess.size`` or ``thresholds.score``."""
    manifest = dataclasses.replace(example_manifest(), reference=Reference("a {}.", SPEC), calibrated_for="text")
    first, *rest = field.split(".")
    if not rest:
        return dataclasses.replace(manifest, **{first: value})
    if first in ("thresholds", "conformal"):
        return dataclasses.replace(manifest, **{first: {".".join(rest): value}})
    if first == "reference":
        spec = dataclasses.replace(SPEC, **{rest[1]: value})
        return dataclasses.replace(manifest, reference=Reference("a {}.", spec))
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
        ("preprocess.jpeg_margin", 1, 4096),
        ("preprocess.mean", -1e6, 1e6),
        ("preprocess.std", 1e-6, 1e6),
        ("tokenizer.context_length", 2, 65_536),
        ("tokenizer.n_prefix", 1, 65_536),
        ("tokenizer.max_name_tokens", 1, 65_536),
        ("reference.tokenizer.max_name_tokens", 1, 65_536),
    ],
)
def test_limits_of_every_number(field: str, least: float, largest: float) -> None:
    for value in (least, largest):
        check_numbers(limited(field, value), "here")
    step = 1 if isinstance(least, int) and field not in ("thresholds.score", "conformal.0.9") else 1e-7
    for value in (least - step, largest + step * max(1, abs(largest))):
        with pytest.raises(BundleError, match=f"here: field {re.escape(field)}: expected"):
            check_numbers(limited(field, value), "here")


@pytest.mark.parametrize("coverage", ["0", "1", "0.0", "nan"])
def test_a_coverage_lies_between_0_and_1(coverage: str) -> None:
    with pytest.raises(BundleError, match="a coverage is a number between 0 and 1"):
        check_numbers(dataclasses.replace(example_manifest(), conformal={coverage: 0.5}), "here")
