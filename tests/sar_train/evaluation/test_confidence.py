from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from sar_train.evaluation.calibration import expected_calibration_error, softmax
from sar_train.evaluation.confidence import COVERAGES, FOLDS, LEAST_PHOTOS, Fitted, Photos, calibrate, not_calibrated


def photos(count: int, seed: int = 0, temperature: float = 2.0) -> Photos:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=6, size=(count, 5))
    return Photos(logits, np.array([rng.choice(5, p=row) for row in softmax(logits / temperature)]))


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
    count = LEAST_PHOTOS - -(-LEAST_PHOTOS // FOLDS)  # what the rule of a fold is fitted on
    assert all(np.ceil((count + 1) * coverage) <= count for coverage in COVERAGES)


def whole_nll(held: Photos, temperature: float) -> float:
    true = softmax(held.logits / temperature)[np.arange(len(held)), held.labels]
    return float(-np.log(true).mean())


def test_too_few_photos_or_photos_that_say_nothing() -> None:
    assert calibrate("shapes", photos(LEAST_PHOTOS - 1)) is None
    assert calibrate("shapes", photos(LEAST_PHOTOS), photos(0)) is None
    right = photos(100)
    assert calibrate("shapes", Photos(right.logits, right.logits.argmax(axis=1))) is None


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
