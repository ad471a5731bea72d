"""The official trainers' numbers, kept in ``official/``, and ours (how they were made: ``official/README.md``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support.official import CASES, FOLDER, noise, ours


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_the_random_numbers_are_those_that_the_golden_ones_were_made_from() -> None:
    assert (noise("a name", 6) * 2**15).tolist() == [-9349, 7850, -7015, -17177, -12018, 31881]


def test_every_case_has_golden_numbers() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} - {"clip-small", "clip-text", "clip-both"} == {*CASES}


NIGHTLY = ("tcp-cars", "tcp-ucf101")
"""They differ from ``tcp-dtd`` in the template of their data set alone."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] * (name in NIGHTLY)) for name in CASES]
)
def test_we_get_the_official_codes_numbers(name: str) -> None:
    golden = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    ours_flat = flat(ours(CASES[name]))
    expected = flat(golden["numbers"])
    assert ours_flat.keys() == expected.keys()
    # PromptSRC's average over epochs is kept in float32.
    limit = 1e-6 if name == "promptsrc" else 1e-10
    for key, value in expected.items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(ours_flat[key], value, rtol=0, atol=limit * scale, err_msg=key)


def flat(numbers: dict[str, Any], before: str = "") -> dict[str, np.ndarray]:
    """Nested tables as arrays by path."""
    ours_flat: dict[str, np.ndarray] = {}
    for key, value in numbers.items():
        ours_flat |= flat(value, f"{before}{key}: ") if isinstance(value, dict) else {before + key: np.array(value)}
    return ours_flat
