"""Unknown by the distance to the best class, where class statistics say how far is far."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.bundles import DIM, ENCODER_DIGEST, example_manifest
from support.trained import example_statistics

from sar_infer.bank import ClassBank
from sar_infer.classifiers.composition import Composer
from sar_infer.classifiers.confidence import Confidence
from sar_infer.classify.class_set import ClassSet, build_class_set
from sar_infer.classify.decision import Decision, judged_by, usual_sign
from sar_infer.encoders.encoders import unit_rows
from sar_infer.errors import InputError
from sar_infer.results import DecisionOptions, Unknown

NAMES = ("red", "green", "blue", "grey")
ROWS = unit_rows(np.random.default_rng(4).normal(size=(9, DIM)).astype(np.float32))
BANK = ClassBank.of(NAMES, unit_rows(np.random.default_rng(3).normal(size=(4, DIM)).astype(np.float32)), ENCODER_DIGEST)
MANIFEST = example_manifest()


def classes(distance: float | None = None, statistics: bool = True) -> ClassSet:
    trained = example_statistics(NAMES[:3])
    if distance is not None:
        trust = Confidence(1.5, 0.2, -3.0, 2.0, ((0, (0.3, 0.2, 0.1)),), distance)
        trained = dataclasses.replace(trained, statistics=dataclasses.replace(trained.statistics, confidence=trust))
    composer = Composer(trained if statistics else None, BANK, MANIFEST.logit_scale)
    return build_class_set(BANK, {}, False, lambda _: ROWS[:0], composer)


def unknown(chosen: ClassSet, by: Unknown, threshold: float | None = None) -> list[tuple[bool | None, str | None]]:
    decide = Decision(MANIFEST, chosen, 1, DecisionOptions(by, threshold))
    return [(result.unknown, result.reason) for result in decide(ROWS)]


def distances(chosen: ClassSet) -> list[float]:
    """Squared distances to the best class, from the definition."""
    model = example_statistics(NAMES[:3]).statistics
    p, result = model.precision.astype(np.float64), []
    for row, decided in zip(ROWS.astype(np.float64), Decision(MANIFEST, chosen, 1)(ROWS), strict=True):
        name = decided.predictions[0].label
        mean = model.centre + model.slope * (BANK.entry(name).embedding - model.text_centre)
        if name in NAMES[:3]:
            photos = model.counts[NAMES.index(name)]
            mean = (photos * model.means[NAMES.index(name)] + model.prior * mean) / (photos + model.prior)
        result.append(float((row - mean) @ p @ (row - mean)))
    return result


@pytest.mark.parametrize("by", ["auto", "distance"])
def test_a_photo_is_unknown_beyond_the_distance_that_leaving_classes_out_found(by: Unknown) -> None:
    expected = distances(classes())
    middle = float(np.median(expected)) + 1e-3
    chosen = classes(middle)
    assert usual_sign(MANIFEST, chosen) == "distance"
    assert judged_by(MANIFEST, chosen) == ["distance"]
    answers = unknown(chosen, by)
    assert [flag for flag, _ in answers] == [distance > middle for distance in expected]
    for (flag, reason), distance in zip(answers, expected, strict=True):
        assert reason == (f"distance {distance:.1f} is above {middle:.1f}" if flag else None)


def test_a_threshold_of_the_caller_s_is_for_the_score_unless_the_distance_is_named() -> None:
    chosen = classes(1.0)
    expected = distances(chosen)
    assert [flag for flag, _ in unknown(chosen, "distance", max(expected) - 1e-3)] == [
        distance == max(expected) for distance in expected
    ]
    assert all(reason is None or reason.startswith("score") for _, reason in unknown(chosen, "auto", 0.5))


def test_without_a_distance_that_is_known_the_score_decides() -> None:
    chosen = classes(float("inf"))  # text alone ranked when classes were left out
    assert usual_sign(MANIFEST, chosen) == "score"
    with pytest.raises(InputError, match="unknown by score: this bundle was not calibrated"):
        unknown(chosen, "auto")


def test_without_statistics_there_is_no_distance() -> None:
    chosen = classes(statistics=False)
    assert judged_by(MANIFEST, chosen) == []
    with pytest.raises(InputError, match="unknown by distance: these classes have no class statistics"):
        unknown(chosen, "distance", 3.0)
