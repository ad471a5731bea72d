"""Classes that a bank knows by name alone keep their images when others are fitted on photos beside them."""

from __future__ import annotations

import numpy as np
import pytest
from support.unit import unit

from sar_infer.classifiers import left_out
from sar_infer.classifiers.fitting import Fitting, fit
from sar_infer.classifiers.left_out import Rivals
from sar_infer.classifiers.statistics import composed

SIZE, TAUGHT, NAMED, SHOTS, SCALE = 32, 6, 200, 16, 20.0
RNG = np.random.default_rng(5)


TRUTH = RNG.normal(size=(TAUGHT + NAMED, SIZE))
TRUTH[:TAUGHT] += 0.5 * RNG.normal(size=SIZE)
ROWS = unit(TRUTH + 0.4 * RNG.normal(size=TRUTH.shape))
ROWS[:TAUGHT] = unit(TRUTH[:TAUGHT] + 3 * RNG.normal(size=(TAUGHT, SIZE)))  # few of them are right by name
RIVALS = Rivals(ROWS[TAUGHT:])


def photos(labels: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(TRUTH[labels] + 1.6 * rng.normal(size=(len(labels), SIZE)))


LABELS = np.repeat(np.arange(TAUGHT), SHOTS)


def fitted(rivals: Rivals = RIVALS) -> Fitting:
    return fit(photos(LABELS, 1), LABELS, ROWS[:TAUGHT], SCALE, rivals=rivals)


def right(fitting: Fitting, labels: np.ndarray) -> float:
    """Return the share of fresh photos that are right among all classes."""
    model = fitting.statistics
    means = np.concatenate([model.means, np.zeros((NAMED, SIZE))])
    counts = [SHOTS] * TAUGHT + [0] * NAMED
    weights, bias = composed(model, SCALE, ROWS.astype(np.float32), means, counts)
    return float((((photos(labels, 2) - model.centre) @ weights.T + bias).argmax(1) == labels).mean())


def test_named_classes_lose_less_to_classes_with_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    named, taught = np.repeat(np.arange(TAUGHT, TAUGHT + NAMED), 3), np.repeat(np.arange(TAUGHT), 40)
    by_text = ((photos(named, 2) @ ROWS.T).argmax(1) == named).mean()
    fitting = fitted()
    assert right(fitting, named) > 0.7 * by_text
    assert right(fitting, taught) > 0.8
    monkeypatch.setattr(left_out, "_FOR_NAMES", 0.0)
    assert right(fitted(), named) < 0.55 * by_text, "this world shows nothing"


def test_g_is_the_largest_within_the_margin() -> None:
    choice = fitted().choice
    shifts, taught, by_name = np.array(choice.curve).T
    mean = (taught + by_name) / 2
    margin = 4 * NAMED / (NAMED + TAUGHT)
    assert mean[shifts == 0] >= mean.max() - margin
    assert (mean[shifts > 0] < mean.max() - margin).all()


def test_few_names_cost_little() -> None:
    alone, beside = (fitted(Rivals(names)).choice for names in (None, ROWS[TAUGHT : TAUGHT + 1]))
    assert abs(alone.offsets[-1][1] - beside.offsets[-1][1]) < SCALE / 2
