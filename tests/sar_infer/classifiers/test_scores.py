"""Scores and their calibration against closed forms, scipy, brute force and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.special import softmax as scipy_softmax

from sar_infer.classifiers.scores import (
    auroc,
    conformal_threshold,
    energy,
    expected_calibration_error,
    fit_temperature,
    keeping,
    negative_log_likelihood,
    softmax,
)

LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=st.floats(-300, 300))
VALUES = st.lists(st.integers(-4, 4), min_size=1, max_size=12)


def drawn(count: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from ``softmax(logits / temperature)``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=4, size=(count, classes))
    labels = [rng.choice(classes, p=row) for row in softmax(logits / temperature)]
    return logits, np.array(labels)


@given(logits=LOGITS, temperature=st.floats(0.1, 10))
def test_softmax_and_energy_are_scipys(logits: np.ndarray, temperature: float) -> None:
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=1), rtol=1e-9, atol=1e-300)
    expected = -temperature * logsumexp(logits / temperature, axis=1)
    np.testing.assert_allclose(energy(logits, temperature), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(energy(logits[0], temperature), expected[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(softmax(logits[0]), softmax(logits)[0], rtol=1e-9)
    single = logits.astype(np.float32)
    assert softmax(single).dtype == np.float32
    np.testing.assert_allclose(softmax(single), softmax(logits), atol=1e-4)
    np.testing.assert_array_equal(softmax(np.array([[1e30, -1e30]], np.float32)), [[1, 0]])


def test_the_temperature_is_the_most_likely_one() -> None:
    logits, labels = drawn(300, 5, 1.7, seed=3)
    best = minimize_scalar(
        lambda t: negative_log_likelihood(softmax(logits / t), labels),
        bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert fit_temperature(logits, labels) == pytest.approx(best.x, rel=1e-5)


def test_where_every_photo_is_right_or_all_are_hopeless_there_is_no_temperature() -> None:
    logits = np.array([[3.0, 1, 0], [0, 1, 0]])
    assert fit_temperature(logits, np.array([0, 1])) is None
    assert fit_temperature(logits, np.array([2, 0])) is None
    assert fit_temperature(np.repeat(logits, 3, axis=0), np.array([0, 0, 2, 1, 1, 1])) is not None


def test_a_temperature_at_the_bounds_is_none() -> None:
    """Of 40 photos one is wrong, by a hair: the likelihood wants a T below any that means something."""
    logits = np.tile([0.05, 0, 0], (40, 1))
    logits[0] = [0.05, 0.0501, 0]
    assert fit_temperature(logits, np.zeros(40, dtype=np.int64)) is None
    assert fit_temperature(np.tile([1e-4, 0.0], (40, 1)), np.arange(40) % 3 // 2) is None


def test_temperatures_between_a_fiftieth_and_fifty_are_found() -> None:
    logits, labels = drawn(2000, 5, 1.0)
    fitted = fit_temperature(logits, labels)
    assert fitted is not None
    for temperature in (0.0205, 1.0, 48.0):
        value = fit_temperature(temperature / fitted * logits, labels)
        assert value == pytest.approx(temperature, rel=1e-9)
    for temperature in (0.0195, 52.0):
        assert fit_temperature(temperature / fitted * logits, labels) is None


def test_a_probability_of_zero_counts_as_the_smallest_number() -> None:
    value = negative_log_likelihood(np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([0, 1]))
    assert value == pytest.approx((-np.log(np.finfo(np.float64).tiny) + np.log(2)) / 2)


def test_calibration_error_by_hand() -> None:
    """Two bins are filled: (0.9, 0.9, right and wrong) and (0.6, right)."""
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    value = expected_calibration_error(probabilities, np.array([0, 0, 0]), bins=10)
    assert value == pytest.approx(2 / 3 * abs(0.5 - 0.9) + 1 / 3 * abs(1 - 0.6))
    assert expected_calibration_error(probabilities, np.array([0, 0, 0])) == pytest.approx(value)  # of 15 bins too


@given(values=VALUES, share=st.floats(0.05, 1))
def test_the_largest_value_that_keeps_a_share(values: list[int], share: float) -> None:
    array = np.array(values, dtype=np.float64)
    sufficient = [v for v in sorted(set(values)) if np.mean(array >= v) >= share - 1e-9]
    assert keeping(array, share) == max(sufficient)


@given(known_values=VALUES, unknown=VALUES)
def test_auroc_is_the_share_of_pairs_in_order(known_values: list[int], unknown: list[int]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(known_values, unknown)]
    assert auroc(np.array(known_values, float), np.array(unknown, float)) == pytest.approx(np.mean(pairs))


def test_conformal_threshold_by_hand() -> None:
    scores = np.array([0.5, 0.1, 0.9, 0.3])
    assert conformal_threshold(scores, 0.8) == 0.1  # the 4th largest of 4
    assert conformal_threshold(scores, 0.6) == 0.3
    assert conformal_threshold(scores, 0.9) == 0.0  # five would be needed


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_cover_what_they_promise_whatever_the_scores(coverage: float) -> None:
    """Over many draws of 99 photos to fit on and one more; with 99, exactly the coverage where no two are equal."""
    rng = np.random.default_rng(1)
    scores = rng.beta(0.5, 2, size=(4000, 100))
    held = [one[-1] >= conformal_threshold(one[:-1], coverage) for one in scores]
    assert np.mean(held) == pytest.approx(coverage, abs=4 * (coverage * (1 - coverage) / 4000) ** 0.5)
