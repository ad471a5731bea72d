"""Measures against their definitions, by loops and by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sar_infer.measures import (
    Z95,
    average_precision,
    calibration_error,
    calibration_error_by_chance,
    confused_pairs,
    reliability,
    wilson,
)


@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (1, 2), (13, 15), (59, 105), (700, 1000)])
@pytest.mark.parametrize("z", [Z95, 3.29])
def test_the_interval_holds_the_shares_that_the_score_test_does_not_reject(right: int, count: int, z: float) -> None:
    shares = np.linspace(0, 1, 200_001)
    inside = shares[(right / count - shares) ** 2 <= z * z * shares * (1 - shares) / count]
    expected = (inside.min(initial=right / count), inside.max(initial=right / count))
    assert wilson(right, count, z) == pytest.approx(expected, abs=1e-5)


def answers(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    scores = generator.choice([0.0, 0.2, 1 / 3, 0.4, 0.8, 1.0, *generator.random(6)], count)
    return scores, generator.random(count) < scores**2


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_bins_and_error_by_loops(bins: int) -> None:
    scores, right = answers(300)
    table = reliability(scores, right, bins)
    error = 0.0
    for number in range(bins):
        members = [
            at
            for at, score in enumerate(scores)
            if number / bins < score <= (number + 1) / bins or score == number == 0
        ]
        assert table.counts[number] == len(members)
        assert table.right[number] == sum(right[at] for at in members)
        assert table.scores[number] == pytest.approx(sum(scores[at] for at in members))
        if members:
            error += len(members) / 300 * abs(np.mean(right[members]) - np.mean(scores[members]))
    assert calibration_error(scores, right, bins) == pytest.approx(error) == pytest.approx(table.error)


def test_the_error_of_perfect_scores_is_the_mean_over_all_outcomes() -> None:
    scores = np.array([0.95, 0.9, 0.85, 0.7, 0.7, 0.6, 0.55, 0.5, 0.4, 0.3])
    exact = sum(
        math.prod(score if hit else 1 - score for score, hit in zip(scores, outcome, strict=True))
        * calibration_error(scores, np.array(outcome), 4)
        for outcome in itertools.product([False, True], repeat=len(scores))
    )
    assert calibration_error_by_chance(scores, 4) == pytest.approx(exact, abs=0.015)
    assert calibration_error_by_chance(np.ones(10)) == 0


def test_perfect_scores_have_no_more_error_than_chance_gives_and_others_do() -> None:
    generator = np.random.default_rng(1)
    scores = generator.uniform(0.3, 1, 2000)
    by_chance = calibration_error_by_chance(scores)
    assert calibration_error(scores, generator.random(2000) < scores) == pytest.approx(by_chance, abs=0.02)
    assert calibration_error(scores, generator.random(2000) < scores - 0.2) > by_chance + 0.1


def test_pairs_by_loops() -> None:
    generator = np.random.default_rng(2)
    labels, predicted = generator.integers(0, 4, 200), generator.integers(0, 4, 200)
    counts = {
        (one, other): int(sum((labels == one) & (predicted == other)))
        for one, other in itertools.permutations(range(4), 2)
    }
    pairs = confused_pairs(labels, predicted)
    assert {(one, other): count for one, other, count in pairs} == {pair: n for pair, n in counts.items() if n}
    order = [(-count, one, other) for one, other, count in pairs]
    assert order == sorted(order)


def test_average_precision_is_scikit_learn_s() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    for digits in (1, 9):  # with equal scores and without
        scores, shows = generator.random(50).round(digits), generator.random(50) < 0.3
        assert average_precision(scores, shows) == pytest.approx(metrics.average_precision_score(shows, scores))
