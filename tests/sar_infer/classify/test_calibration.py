"""Calibration that is fitted on held-out images and measured on others, beside the same by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from sar_infer.classifiers.scores import (
    COVERAGES,
    auroc,
    conformal_threshold,
    energy,
    expected_calibration_error,
    fit_temperature,
    softmax,
)
from sar_infer.classify.calibration import FOLDS, LEAST_IMAGES, Fitted, HeldOut, calibrate, not_calibrated


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
    for coverage, share in measured.coverage.items():
        assert share == pytest.approx(float(coverage), abs=0.03)
    assert 1 <= measured.set_size["0.8"] < measured.set_size["0.9"] < measured.set_size["0.95"] <= 5
    assert measured.unknown_auroc.keys() == {"score", "energy"}
    assert min(measured.unknown_auroc.values()) > 0.8
    before = expected_calibration_error(softmax(photos(3000, seed=1).logits), photos(3000, seed=1).labels)
    assert measured.error_before == before


def test_held_out_images_can_be_taken_apart_and_put_together() -> None:
    held = dataclasses.replace(photos(9), distances=np.arange(9.0))
    both = held.subset(np.arange(3)).with_more(held.subset(np.arange(3, 9)))
    for field in dataclasses.fields(held):
        np.testing.assert_array_equal(getattr(both, field.name), getattr(held, field.name))
    assert both.with_more(photos(1)).distances is None


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
        subset = order[start::10]
        rest = np.setdiff1d(order, subset)
        rule = calibrate("shapes", held.subset(rest), held.subset(subset), unknown)
        temperature = fit_temperature(held.logits[rest], held.labels[rest])
        assert rule is not None and temperature is not None
        probabilities, strange = softmax(held.logits[subset] / temperature), softmax(unknown / temperature)
        losses += (-np.log(probabilities[np.arange(len(subset)), held.labels[subset]])).tolist()
        scores.append(auroc(probabilities.max(axis=1), strange.max(axis=1)))
        energies.append(auroc(-energy(held.logits[subset], temperature), -energy(unknown, temperature)))
        true = softmax(held.logits[rest] / temperature)[np.arange(len(rest)), held.labels[rest]]
        sizes += (probabilities >= conformal_threshold(true, 0.9)).sum(axis=1).tolist()
    measured = fitted.measured
    assert measured.nll_after == pytest.approx(np.mean(losses))
    assert measured.unknown_auroc == pytest.approx({"score": np.mean(scores), "energy": np.mean(energies)})
    assert measured.set_size["0.9"] == pytest.approx(np.mean(sizes))
    assert fitted.conformal.keys() == measured.coverage.keys() == {"0.8", "0.9", "0.95"}
    assert measured.nll_before == pytest.approx(whole_nll(held, 1.0))


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
