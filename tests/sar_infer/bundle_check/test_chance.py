"""Verdicts on few photos: a published example, and the share of false alarms counted over all outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sar_infer.bundle_check import chance
from sar_infer.bundle_check.chance import chance_error, least_loss, lowest_credible
from sar_infer.classifiers.scores import expected_calibration_error


def binomial(count: int, share: float) -> np.ndarray:
    return np.array([math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)])


def test_the_example_of_newcombe(monkeypatch: pytest.MonkeyPatch) -> None:
    """56 of 70 against 48 of 80, 95 %: 0.0524 to 0.3339 (Statistics in Medicine 17:873, table II, method 10)."""
    monkeypatch.setattr(chance, "Z", 1.959964)
    assert least_loss(80, 70, 60, 80) == pytest.approx(5.24, abs=0.005)
    assert least_loss(60, 80, 80, 70) == pytest.approx(-33.39, abs=0.005)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
@pytest.mark.parametrize(("photos_then", "photos_now"), [(18, 150), (18, 18), (150, 30)])
def test_photos_of_the_same_kind_fail_less_than_once_in_a_thousand(
    share: float, photos_then: int, photos_now: int
) -> None:
    now = np.arange(photos_now + 1) * 100 / photos_now
    alarms = 0.0
    for right, probability in enumerate(binomial(photos_then, share)):
        bound = lowest_credible(100 * right / photos_then, photos_then, photos_now, 1.0)
        alarms += probability * binomial(photos_now, share)[now < bound].sum()
    assert alarms < 0.001


@pytest.mark.parametrize(
    ("then", "photos_then", "photos_now"), [(100.0, 18, 150), (88.9, 18, 18), (60.0, 500, 7), (0.0, 9, 9)]
)
def test_the_bound_is_the_first_count_without_a_shown_loss(then: float, photos_then: int, photos_now: int) -> None:
    counts = [k for k in range(photos_now + 1) if least_loss(then, photos_then, 100 * k / photos_now, photos_now) <= 1]
    assert lowest_credible(then, photos_then, photos_now, 1.0) == pytest.approx(100 * counts[0] / photos_now)


def test_many_photos_show_a_small_loss() -> None:
    assert lowest_credible(85, 10**6, 10**6, 1.0) == pytest.approx(83.8, abs=0.1)


def test_scores_that_are_right_on_average_stay_within_the_error_of_chance() -> None:
    rng = np.random.default_rng(4)
    for photos_then, photos_now in ((20, 20), (20, 300), (300, 20)):
        errors = []
        for count in (photos_then, photos_now) * 100:
            scores = rng.uniform(0.5, 1, count)
            probabilities = np.stack([scores, 1 - scores], axis=1)
            errors.append(expected_calibration_error(probabilities, (rng.random(count) >= scores).astype(np.int64)))
        grown = np.array(errors[1::2]) - np.array(errors[::2])
        assert grown.max() < chance_error(photos_then, photos_now)
