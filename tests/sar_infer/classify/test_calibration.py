"""Calibration figures against closed forms, brute force and simulation, then what is fitted and measured with them."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.special import softmax as scipy_softmax

from sar_infer.classifiers.scores import (
    COVERAGES,
    auroc,
    conformal_threshold,
    energy,
    expected_calibration_error,
    fit_temperature,
    keeping,
    negative_log_likelihood,
    softmax,
)
from sar_infer.classify.calibration import FOLDS, LEAST_IMAGES, Fitted, HeldOut, calibrate, not_calibrated

LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=st.floats(-300, 300))
SINGLE = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-500, 500, width=32)
)
VALUES = st.lists(st.integers(-4, 4), min_size=1, max_size=12)


def drawn(count: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from ``softmax(logits / temperature)``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=4, size=(count, classes))
    labels = [rng.choice(classes, p=row) for row in softmax(logits / temperature)]
    return logits, np.array(labels)


@given(logits=SINGLE)
def test_softmax_is_a_distribution_that_a_shift_leaves_alone(logits) -> None:
    result = softmax(logits)
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(softmax(logits - np.float32(16)), result, atol=1e-3)


def test_softmax_of_known_values_and_huge_ones() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1, 3]], np.float32))), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_array_equal(softmax(np.array([[1e30, -1e30]], np.float32)), [[1, 0]])


@given(logits=LOGITS, temperature=st.floats(0.1, 10))
def test_softmax_and_energy_are_scipys(logits: np.ndarray, temperature: float) -> None:
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=1), rtol=1e-9, atol=1e-300)
    expected = -temperature * logsumexp(logits / temperature, axis=1)
    np.testing.assert_allclose(energy(logits, temperature), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(energy(logits[0], temperature), expected[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(softmax(logits[0]), softmax(logits)[0], rtol=1e-9)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(20_000, 6, temperature)) == pytest.approx(temperature, rel=0.05)


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
        found = fit_temperature(temperature / fitted * logits, labels)
        assert found == pytest.approx(temperature, rel=1e-9)
    for temperature in (0.0195, 52.0):
        assert fit_temperature(temperature / fitted * logits, labels) is None


def test_a_probability_of_zero_counts_as_the_smallest_number() -> None:
    found = negative_log_likelihood(np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([0, 1]))
    assert found == pytest.approx((-np.log(np.finfo(np.float64).tiny) + np.log(2)) / 2)


def test_there_are_fifteen_bins_unless_asked_otherwise() -> None:
    logits, labels = drawn(300, 4, 1.0)
    found = [expected_calibration_error(softmax(3 * logits), labels, **bins) for bins in ({}, {"bins": 15})]
    assert found[0] == found[1]
    assert found[0] not in [expected_calibration_error(softmax(3 * logits), labels, bins) for bins in (14, 16)]


def test_labels_drawn_from_the_scores_are_calibrated_and_sharper_ones_are_not() -> None:
    logits, labels = drawn(40_000, 5, 1.0)
    assert expected_calibration_error(softmax(logits), labels) < 0.01
    assert expected_calibration_error(softmax(3 * logits), labels) > 0.05


@given(values=VALUES, share=st.floats(0.05, 1))
def test_the_largest_value_that_keeps_a_share(values: list[int], share: float) -> None:
    array = np.array(values, dtype=np.float64)
    kept = [v for v in sorted(set(values)) if np.mean(array >= v) >= share - 1e-9]
    assert keeping(array, share) == max(kept)


@given(known=VALUES, unknown=VALUES)
def test_auroc_is_the_share_of_pairs_in_order(known: list[int], unknown: list[int]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(known, unknown)]
    assert auroc(np.array(known, float), np.array(unknown, float)) == pytest.approx(np.mean(pairs))


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


def photos(count: int, seed: int = 0, temperature: float = 2.0) -> HeldOut:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=6, size=(count, 5))
    return HeldOut(logits, np.array([rng.choice(5, p=row) for row in softmax(logits / temperature)]))


def test_fitted_on_some_and_measured_on_others() -> None:
    unknown = np.random.default_rng(9).normal(scale=1, size=(400, 5))
    fitted = calibrate("shapes", photos(2000), photos(3000, seed=1), unknown)
    assert fitted is not None
    measured = fitted.measured
    assert fitted.temperature == pytest.approx(2, rel=0.1)
    assert (measured.dataset, measured.fitted_on, measured.measured_on) == ("shapes", 2000, 3000)
    assert not measured.cross_fitted
    assert measured.error_after < 0.03 < measured.error_before
    assert measured.nll_after < measured.nll_before
    for coverage, found in measured.coverage.items():
        assert found == pytest.approx(float(coverage), abs=0.03)
    assert 1 <= measured.set_size["0.8"] < measured.set_size["0.9"] < measured.set_size["0.95"] <= 5
    assert measured.unknown_auroc.keys() == {"score", "energy"}
    assert min(measured.unknown_auroc.values()) > 0.8
    before = expected_calibration_error(softmax(photos(3000, seed=1).logits), photos(3000, seed=1).labels)
    assert measured.error_before == before


def test_thresholds_keep_what_they_were_fitted_on() -> None:
    held = photos(1000)
    fitted = calibrate("shapes", held, photos(50, seed=1))
    assert fitted is not None
    scaled = held.logits / fitted.temperature
    assert np.mean(softmax(scaled).max(axis=1) >= fitted.thresholds["score"]) == pytest.approx(0.95, abs=0.001)
    energy = -fitted.temperature * np.log(np.exp(scaled).sum(axis=1))
    assert np.mean(energy <= fitted.thresholds["energy"]) == pytest.approx(0.95, abs=0.001)


def test_a_class_that_scores_just_enough_is_in_the_set() -> None:
    held = photos(999)
    fitted = calibrate("shapes", held, held)
    assert fitted is not None
    assert dict(fitted.measured.coverage) == pytest.approx({"0.8": 800 / 999, "0.9": 900 / 999, "0.95": 950 / 999})


def test_without_other_photos_it_is_cross_fitted_and_each_photo_measured_once() -> None:
    held = photos(401)
    fitted = calibrate("shapes", held)
    assert fitted is not None
    assert fitted.measured.cross_fitted
    assert (fitted.measured.fitted_on, fitted.measured.measured_on) == (401, 401)
    assert fitted.measured.unknown_auroc == {}
    whole = calibrate("shapes", held, photos(10, seed=1))
    assert whole is not None
    assert (fitted.temperature, fitted.thresholds, fitted.conformal) == (
        whole.temperature, whole.thresholds, whole.conformal,
    )  # fmt: skip
    assert fitted.measured.nll_after > whole_nll(held, fitted.temperature)  # no photo was judged by its own fit


def test_cross_fitted_figures_by_hand() -> None:
    """Every tenth row in the order of labels is measured with what the other rows give."""
    held, unknown = photos(83, 4), photos(40, 5).logits
    fitted = calibrate("shapes", held, unknown=unknown)
    assert fitted is not None
    order = np.argsort(held.labels, kind="stable")
    losses, scores, energies, sizes = list[float](), list[float](), list[float](), list[int]()
    for start in range(10):
        part = order[start::10]
        rest = np.setdiff1d(order, part)
        rule = calibrate("shapes", held.subset(rest), held.subset(part), unknown)
        temperature = fit_temperature(held.logits[rest], held.labels[rest])
        assert rule is not None and temperature is not None
        probabilities, strange = softmax(held.logits[part] / temperature), softmax(unknown / temperature)
        losses += (-np.log(probabilities[np.arange(len(part)), held.labels[part]])).tolist()
        scores.append(auroc(probabilities.max(axis=1), strange.max(axis=1)))
        energies.append(auroc(-energy(held.logits[part], temperature), -energy(unknown, temperature)))
        true = softmax(held.logits[rest] / temperature)[np.arange(len(rest)), held.labels[rest]]
        sizes += (probabilities >= conformal_threshold(true, 0.9)).sum(axis=1).tolist()
    measured = fitted.measured
    assert measured.nll_after == pytest.approx(np.mean(losses))
    assert measured.unknown_auroc == pytest.approx({"score": np.mean(scores), "energy": np.mean(energies)})
    assert measured.set_size["0.9"] == pytest.approx(np.mean(sizes))
    assert fitted.conformal.keys() == measured.coverage.keys() == {"0.8", "0.9", "0.95"}
    assert measured.nll_before == pytest.approx(whole_nll(held, 1.0))


def test_held_out_images_can_be_taken_apart_and_put_together() -> None:
    held = photos(9)
    first, rest = held.subset(np.arange(3)), held.subset(np.arange(3, 9))
    assert (len(first), len(rest)) == (3, 6)
    both = first.with_more(rest)
    np.testing.assert_array_equal(both.logits, held.logits)
    np.testing.assert_array_equal(both.labels, held.labels)


def test_cross_fitted_figures_are_those_of_the_rule_that_ships() -> None:
    """On 60 photos a run, over many runs: coverage and size of sets as on photos that nobody has seen."""
    measured, shipped = [], []
    for seed in range(60):
        held, fresh = photos(60, seed, 3.0), photos(500, 1000 + seed, 3.0)
        fitted, later = calibrate("shapes", held), None
        if fitted is not None:
            found = softmax(fresh.logits / fitted.temperature)
            later = found >= fitted.conformal["0.95"]
            measured.append((fitted.measured.coverage["0.95"], fitted.measured.set_size["0.95"]))
            shipped.append((later[np.arange(500), fresh.labels].mean(), later.sum(axis=1).mean()))
    assert len(measured) > 50
    (coverage, size), (later_coverage, later_size) = np.mean(measured, axis=0), np.mean(shipped, axis=0)
    assert coverage == pytest.approx(later_coverage, abs=0.02)
    assert size == pytest.approx(later_size, rel=0.15)  # rules of halves are off by more


def test_a_temperature_that_makes_other_photos_less_likely_is_not_kept() -> None:
    held, others = photos(200, 0, 0.5), photos(200, 1, 3.0)
    unlike = calibrate("shapes", held, others)
    assert unlike is not None
    assert unlike.temperature == 1
    assert unlike.measured.nll_after == unlike.measured.nll_before
    least = unlike.conformal["0.9"]
    true = softmax(held.logits)[np.arange(200), held.labels]
    assert np.mean(true >= least) == pytest.approx(0.9, abs=0.01)


def test_the_least_photos_suffice_for_every_coverage() -> None:
    count = LEAST_IMAGES - -(-LEAST_IMAGES // FOLDS)  # what the rule of a fold is fitted on
    assert all(np.ceil((count + 1) * coverage) <= count for coverage in COVERAGES)


def whole_nll(held: HeldOut, temperature: float) -> float:
    true = softmax(held.logits / temperature)[np.arange(len(held)), held.labels]
    return float(-np.log(true).mean())


def test_too_few_photos_or_photos_that_say_nothing() -> None:
    assert calibrate("shapes", photos(LEAST_IMAGES - 1)) is None
    assert calibrate("shapes", photos(LEAST_IMAGES), photos(0)) is None
    assert calibrate("shapes", photos(LEAST_IMAGES)) is not None
    assert LEAST_IMAGES == 50
    right = photos(100)
    assert calibrate("shapes", HeldOut(right.logits, right.logits.argmax(axis=1))) is None


def test_where_a_tenth_holds_the_only_mistake_nothing_can_be_cross_fitted() -> None:
    held = photos(100)
    labels = held.logits.argmax(axis=1)
    labels[7] = held.logits[7].argsort()[-2]
    assert fit_temperature(held.logits, labels) is not None
    assert calibrate("shapes", HeldOut(held.logits, labels)) is None


def test_a_record_gives_it_back() -> None:
    fitted = calibrate("shapes", photos(300), photos(300, seed=1))
    assert fitted is not None
    assert Fitted.read(json.loads(json.dumps(dataclasses.asdict(fitted)))) == fitted
    with pytest.raises(TypeError):
        Fitted.read({"temperature": 1.0, "measured": {}})


@pytest.mark.parametrize(
    ("held_out", "why"),
    [
        (None, ""),
        (0, ": 0 held-out photos of the trained classes, 50 are needed"),
        (49, ": 49 held-out photos of the trained classes, 50 are needed"),
        (50, ": no temperature can be told from 50 held-out photos of the trained classes"),
    ],
)
def test_why_scores_are_not_calibrated(held_out: int | None, why: str) -> None:
    assert not_calibrated(held_out) == f"scores are not calibrated{why}"
    assert not_calibrated(held_out, left_out=True) == f"scores are calibrated on classes left out alone{why}"


def test_calibration_error_by_hand() -> None:
    """Two bins are filled: (0.9, 0.9, right and wrong) and (0.6, right)."""
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    found = expected_calibration_error(probabilities, np.array([0, 0, 0]), bins=10)
    assert found == pytest.approx(2 / 3 * abs(0.5 - 0.9) + 1 / 3 * abs(1 - 0.6))


def test_a_score_on_the_edge_counts_to_the_bin_below_and_1_to_the_last() -> None:
    probabilities = np.array([[0.5, 0.5], [0.4, 0.6], [1.0, 0.0]])
    found = expected_calibration_error(probabilities, np.array([0, 0, 0]), bins=2)
    assert found == pytest.approx((1 - 0.5) / 3 + abs((0 + 1) - (0.6 + 1)) / 3)
