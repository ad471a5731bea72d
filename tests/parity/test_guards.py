"""Exports compute what they did when the fixtures in ``guards`` were written; ``support/guards.py`` writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.guards import CASES, of_method, of_mini, photos, present, read

LEAST_COSINE = 0.01
"""The most by which an INT8 embedding may be further from float32 than the fixture's."""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_method_computes_the_same(case: str, tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos")
    there, fixture = present(paths), read(case)
    arrays = of_method(case, [paths[number] for number in there], tmp_path)
    for key in ("photos", "scores"):
        np.testing.assert_allclose(arrays[key], fixture[key][there], atol=1e-4, err_msg=key)
    np.testing.assert_allclose(arrays["names"], fixture["names"], atol=1e-4)
    if "int8/names" not in fixture:
        return
    for key, rows in {"photos": there, "names": slice(None)}.items():
        reference = fixture[key][rows]
        before = (fixture[f"int8/{key}"][rows] * reference).sum(1)
        assert ((arrays[f"int8/{key}"] * reference).sum(1) > before - LEAST_COSINE).all(), f"INT8 {key} are further"
    before = np.abs(fixture["int8/scores"][there] - fixture["scores"][there]).max()
    after = np.abs(arrays["int8/scores"] - fixture["scores"][there]).max()
    assert after < before + 0.05, "INT8 scores are further"


def test_the_shipped_bundle_computes_the_same(tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos")
    there, fixture = present(paths), read("mini")
    arrays = of_mini([paths[number] for number in there])
    for key in ("photos", "scores", "best_scores"):
        np.testing.assert_allclose(arrays[key], fixture[key][there], atol=1e-4, err_msg=key)
    np.testing.assert_allclose(arrays["names"], fixture["names"], atol=1e-4)
    assert arrays["best"].tolist() == fixture["best"][there].tolist()
    assert arrays["graphs"].tolist() == fixture["graphs"].tolist(), "the shipped graphs stay byte for byte"
