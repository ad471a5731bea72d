from __future__ import annotations

import numpy as np
import pytest
from support.trained import softmax

from sar_infer.classify.calibration import calibrate


def drawn(count: int, seed: int, heat: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits of six classes and *unknown* that are calibrated over a temperature, and labels."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, 7))
    logits[:, -1] -= 2
    labels = np.array([rng.choice(6, p=row) for row in softmax(logits[:, :-1])])
    return (heat * logits).astype(np.float32), labels


@pytest.mark.parametrize("heat", [0.5, 3.0])
def test_a_calibration_finds_the_temperature_and_holds_on_other_photos(heat: float) -> None:
    fitted, measured = calibrate(*drawn(3000, 1, heat))
    assert fitted.temperature == pytest.approx(heat, rel=0.1)
    assert measured["error_after"] < 0.03 < measured["error_before"]
    assert measured["called_unknown"] == pytest.approx(0.05, abs=0.015)
    assert measured["coverage"] == pytest.approx((0.8, 0.9, 0.95), abs=0.02)
    logits, labels = drawn(3000, 2, heat)
    shares = softmax(logits[:, :-1] / fitted.temperature)
    for wanted, least in zip((0.8, 0.9, 0.95), fitted.least, strict=True):
        assert (shares[np.arange(3000), labels] >= least).mean() == pytest.approx(wanted, abs=0.03)
    assert (softmax(logits / fitted.temperature)[:, -1] > fitted.unknown).mean() == pytest.approx(0.05, abs=0.02)
    assert measured["accuracy"] == pytest.approx((logits[:, :-1].argmax(1) == labels).mean(), abs=0.05)
    assert list(measured["set_size"]) == sorted(measured["set_size"])


def test_false_alarms_and_other_photos_as_a_loop_over_ten_folds_counts_them() -> None:
    """With photos of all classes in every fold, at the temperature that each fold is given."""
    logits, labels = drawn(400, 3, 1.0)
    others = drawn(90, 4, 1.0)[0] + np.float32([0, 0, 0, 0, 0, 0, 2])
    fitted, measured = calibrate(logits, labels, others, false_alarms=0.2)
    order = sorted(range(400), key=lambda number: (labels[number], number))
    called = 0
    for start in range(10):
        part = order[start::10]
        rest = [number for number in order if number not in part]
        own, _ = calibrate(logits[rest], labels[rest], false_alarms=0.2)
        ranked = sorted(softmax(logits[rest] / own.temperature)[:, -1])
        threshold = ranked[-1 - int(0.2 * (len(rest) - 1) + 1e-9)]
        called += sum(softmax(logits[part] / own.temperature)[:, -1] > threshold)
    found = sum(softmax(others / fitted.temperature)[:, -1] > fitted.unknown)
    assert (measured["called_unknown"], measured["others_found"]) == pytest.approx((called / 400, found / 90))
    assert (measured["other_photos"], measured["others_found"] > 0.3) == (90, True)
    assert calibrate(logits, labels)[1]["others_found"] is None
    assert fitted.unknown < calibrate(logits, labels, others)[0].unknown


def test_photos_that_are_all_right_can_be_calibrated_too() -> None:
    labels = np.arange(60) % 3
    logits = np.concatenate([4 * np.eye(3, dtype=np.float32)[labels], np.zeros((60, 1), np.float32)], axis=1)
    fitted, measured = calibrate(logits, labels)
    assert (measured["accuracy"], measured["called_unknown"], measured["coverage"]) == (1, 0, (1, 1, 1))
    assert fitted.temperature < 0.1
