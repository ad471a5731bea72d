"""On classes whose cosines with the picture are chosen, so that every number follows by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from support.bundles import DIM, example_manifest

from sar_infer.bundle.manifest import Manifest
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import Decision, judged_by
from sar_infer.errors import BundleError, InputError
from sar_infer.results import DecisionOptions, ImageResult

COSINES = (0.9, 0.5, 0.8, -0.2)
NAMES = ("cup", "fog", "mug", "owl")
FITTED = {
    "temperature": 2.0,
    "thresholds": {"score": 0.6, "energy": -18.5},
    "conformal": {"0.8": 0.7, "0.9": 0.2},
    "calibrated": NAMES,
    "calibrated_for": "text",
}


def manifest(**changes: Any) -> Manifest:
    return dataclasses.replace(example_manifest(), **changes)


def classes(**changes: Any) -> ClassSet:
    rows = np.zeros((4, DIM), np.float32)
    rows[:, 0] = COSINES
    rows[:, 1] = np.sqrt(1 - rows[:, 0] ** 2)
    every = np.ones(4, np.bool_)
    return dataclasses.replace(ClassSet(NAMES, (rows,), np.arange(4), calibrated=every), **changes)


def decided(made: Manifest, chosen: ClassSet, top_k: int = 5, **options: Any) -> ImageResult:
    (result,) = Decision(made, chosen, top_k, DecisionOptions(**options))(np.eye(1, DIM, dtype=np.float32))
    return result


def by_hand(temperature: float = 1.0) -> tuple[list[float], float]:
    """Scores by class and the energy, logit scale 20."""
    powers = [math.exp(20 * cosine / temperature) for cosine in COSINES]
    return [power / sum(powers) for power in powers], -temperature * math.log(sum(powers))


def test_scores_are_of_the_logits_over_the_temperature_and_logits_are_not() -> None:
    result = decided(manifest(**FITTED), classes())
    scores, _ = by_hand(2.0)
    assert [p.label for p in result.predictions] == ["cup", "mug", "fog", "owl"]
    assert {p.label: p.score for p in result.predictions} == pytest.approx(dict(zip(NAMES, scores, strict=True)))
    assert [p.logit for p in result.predictions] == pytest.approx([18, 16, 10, -4])
    assert all(p.calibration == "held-out" for p in result.predictions)
    assert (result.unknown, result.reason, result.label_set, result.explanation) == (None,) * 4


BEST, ENERGY = (float(number) for number in (by_hand(2.0)[0][0], by_hand(2.0)[1]))
"""Best score, 0.721, and energy, -18.653, at the temperature of ``FITTED``."""


def for_cup(threshold: float) -> np.ndarray:
    """Least scores of which the class that comes first alone has one."""
    return np.array([threshold, np.nan, np.nan, np.nan], np.float32)


@pytest.mark.parametrize(
    ("options", "own_threshold", "reason"),
    [
        ({"unknown": "score"}, None, None),
        ({"unknown": "score", "threshold": 0.9}, None, "score 0.721 is below 0.900"),
        ({"unknown": "score", "threshold": BEST - 1e-6}, None, None),
        ({"unknown": "energy"}, None, None),
        ({"unknown": "energy", "threshold": -19}, None, "energy -18.653 is above -19.000"),
        ({"unknown": "energy", "threshold": ENERGY + 1e-5}, None, None),
        ({"unknown": "energy"}, 0.8, "score 0.721 is below 0.800, the threshold of this class"),
        ({"unknown": "score", "threshold": 0.9}, 0.5, None),
    ],
)
def test_unknown(options: dict[str, Any], own_threshold: float | None, reason: str | None) -> None:
    """By score or energy; the threshold of a class goes before that of all."""
    chosen = classes() if own_threshold is None else classes(thresholds=for_cup(own_threshold))
    result = decided(manifest(**FITTED), chosen, **options)
    assert (result.unknown, result.reason) == (reason is not None, reason)
    assert result.predictions[0].label == "cup"  # the best guess is still told


def test_at_its_limit_a_class_is_still_believed() -> None:
    best = decided(manifest(**FITTED), classes()).predictions[0].score
    for chosen, options in ((classes(thresholds=for_cup(best)), {}), (classes(), {"threshold": best})):
        assert decided(manifest(**FITTED), chosen, unknown="score", **options).unknown is False
    why = decided(manifest(**FITTED), classes(), explain=True).explanation
    assert why is not None
    assert decided(manifest(**FITTED), classes(), unknown="energy", threshold=why.energy).unknown is False
    made = manifest(**FITTED | {"conformal": {"0.9": best}})
    assert decided(made, classes(), coverage=0.9).label_set == ("cup",)


@pytest.mark.parametrize("kind", ["score", "energy"])
def test_images_that_nothing_can_judge_are_neither_known_nor_unknown(kind: str) -> None:
    other = np.array([np.nan, 0.1, np.nan, np.nan], np.float32)
    last = np.array([False, False, False, True])
    for chosen in (classes(thresholds=other), classes(background=last)):
        result = decided(manifest(), chosen, unknown=kind)
        assert (result.unknown, result.reason) == (None, "cannot be told: no threshold for this class")
    assert decided(manifest(), classes(thresholds=for_cup(0.1)), unknown=kind).unknown is False


def test_a_background_class_is_never_listed_and_may_win() -> None:
    first, last = np.array([True, False, False, False]), np.array([False, False, False, True])
    result = decided(manifest(), classes(background=first))
    scores, _ = by_hand()
    assert [p.label for p in result.predictions] == ["mug", "fog", "owl"]
    assert result.predictions[0].score == pytest.approx(scores[2])  # it takes part in the softmax
    assert (result.unknown, result.reason) == (True, f"background 'cup' scores {scores[0]:.3f}, more than any class")
    lost = decided(manifest(), classes(background=last))
    assert (lost.unknown, [p.label for p in lost.predictions]) == (None, ["cup", "mug", "fog"])
    with pytest.raises(InputError):
        decided(manifest(), classes(background=first | ~first))
    rows = np.array(classes().embeddings)
    rows[3] = rows[0]  # as near as the best, which it does not beat
    equal = decided(manifest(), classes(several=(rows,), background=last), explain=True)
    assert (equal.unknown, equal.explanation and equal.explanation.background) == (None, None)


def test_results_are_called_by_their_images() -> None:
    rows = np.eye(2, DIM, dtype=np.float32)
    decide = Decision(manifest(**FITTED), classes(), 5, DecisionOptions("score", coverage=0.9, explain=True))
    assert [result.image for result in decide(rows)] == ["image[0]", "image[1]"]
    assert [result.image for result in decide(rows, ["a.jpg", "b.jpg"])] == ["a.jpg", "b.jpg"]
    assert list(decide(rows[:0])) == []


@pytest.mark.parametrize("top_k", [1, 4])
def test_a_set_has_all_classes_that_score_enough_however_few_are_listed(top_k: int) -> None:
    wide = decided(manifest(**FITTED), classes(), top_k, coverage=0.9)
    assert (wide.label_set, len(wide.predictions)) == (("cup", "mug"), top_k)
    assert decided(manifest(**FITTED), classes(), top_k, coverage=0.8).label_set == ("cup",)
    for least, expected in ((0.0, ("cup", "mug", "fog", "owl")), (0.75, ())):
        made = manifest(**FITTED | {"conformal": {"0.9": least}})
        assert decided(made, classes(), top_k, coverage=0.9).label_set == expected
    warm = manifest(**FITTED | {"temperature": 4.0, "conformal": {"0.9": 0.34}})  # the best scores are 0.57 and 0.35
    assert decided(warm, classes(), top_k, coverage=0.9).label_set == ("cup", "mug")


def test_an_explanation() -> None:
    scores, energy = by_hand(2.0)
    why = decided(manifest(**FITTED), classes(), 1, explain=True).explanation
    assert why is not None
    assert (why.runner_up, why.background) == ("mug", None)
    assert why.margin == pytest.approx(scores[0] - scores[2])
    assert why.energy == pytest.approx(energy)
    turned = [math.cos(math.acos(0.9) - math.acos(cosine)) for cosine in (0.8, 0.5, -0.2)]
    assert [name for name, _ in why.nearest] == ["mug", "fog", "owl"]
    assert [cosine for _, cosine in why.nearest] == pytest.approx(turned, abs=1e-6)
    alone = ClassSet(("cup",), (classes().embeddings[:1],), np.arange(1))
    why = decided(manifest(), alone, explain=True).explanation
    assert why is not None
    assert (why.margin, why.runner_up, why.nearest) == (None, None, ())
    twice = ClassSet((*NAMES, "ant", "bee"), (classes().embeddings, classes().embeddings[:2]), np.arange(6))
    why = decided(manifest(), twice, explain=True).explanation
    assert why is not None and len(why.nearest) == 3


@pytest.mark.parametrize(
    ("made", "chosen", "options"),
    [
        (manifest(), classes(), {"coverage": 0.9}),
        (manifest(**FITTED), classes(), {"coverage": 0.99}),
        (manifest(**FITTED), classes(calibrated=None), {"coverage": 0.9}),
        (manifest(**FITTED), classes(calibrated=np.array([1, 1, 0, 1], bool)), {"coverage": 0.9}),
        (manifest(**FITTED | {"calibrated": (*NAMES, "emu")}), classes(), {"coverage": 0.9}),
        (
            manifest(**FITTED),
            classes(background=np.array([0, 1, 0, 0], bool)),
            {"coverage": 0.9},
        ),
    ],
)
def test_coverage_that_cannot_be_had_is_refused(made: Manifest, chosen: ClassSet, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Decision(made, chosen, 5, DecisionOptions(**options))


@pytest.mark.parametrize(
    ("thresholds", "changes", "signs"),
    [
        ({}, {}, []),
        ({"score": 0.5}, {}, ["score"]),
        ({"energy": -9.0}, {}, ["energy"]),
        ({"score": 0.5, "energy": -9.0}, {}, ["score", "energy"]),
        ({}, {"thresholds": np.full(4, 0.5, np.float32)}, ["score", "energy"]),
        ({}, {"background": np.array([1, 0, 0, 0], bool)}, ["score", "energy"]),
        ({}, {"background": np.zeros(4, np.bool_)}, []),
    ],
)
def test_signs_that_can_tell_an_unknown_image_may_be_asked_for(
    thresholds: dict[str, float], changes: dict[str, Any], signs: list[str]
) -> None:
    made, chosen = manifest(**FITTED | {"thresholds": thresholds}), classes(**changes)
    assert sorted(judged_by(made, chosen)) == sorted(signs)
    for kind in ("score", "energy"):
        if kind in signs:
            Decision(made, chosen, 5, DecisionOptions(unknown=kind))
        else:
            with pytest.raises(InputError):
                Decision(made, chosen, 5, DecisionOptions(unknown=kind))


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.5},
        {"unknown": "score", "threshold": math.nan},
        {"unknown": "score", "threshold": 1.01},
        {"unknown": "score", "threshold": -0.01},
        {"unknown": "maybe"},
        {"coverage": 1.0},
        {"coverage": math.nan},
    ],
)
def test_options_of_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        DecisionOptions(**options)


def test_rows_of_a_broken_graph_are_refused() -> None:
    row = np.full((1, DIM), np.nan, dtype=np.float32)
    with pytest.raises(BundleError):
        next(Decision(manifest(), classes(), 1)(row))
