"""On classes whose cosines with the picture are chosen, so that every number follows by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from support.bundles import DIM
from support.trained import example_model

from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.composer import Evidence, Linear, Unknown
from sar_infer.classify.decision import Decision, can_call_unknown
from sar_infer.errors import BundleError, InputError
from sar_infer.results import DecisionOptions, ImageResult

COSINES = (0.9, 0.5, 0.8, -0.2)
NAMES = ("cup", "fog", "mug", "owl")
POWERS = [math.exp(10 * cosine) for cosine in COSINES]
SCORES = [power / sum(POWERS) for power in POWERS]
STRANGE = math.exp(8) / (math.exp(8) + sum(POWERS))
"""Probability of unknown, 0.210."""
UNFITTED = example_model(unknown=np.empty((0, 2)), sets=np.empty((0, 4)))


def classes(**changes: Any) -> ClassSet:
    rows = np.zeros((4, DIM), np.float32)
    rows[:, 0] = COSINES
    rows[:, 1] = np.sqrt(1 - rows[:, 0] ** 2)
    several = changes.pop("several", (rows,))
    linear = Linear(
        tuple((each, 10.0) for each in several),
        None,
        Unknown(np.zeros(DIM, np.float32), 8.0, np.empty((DIM, 0), np.float16), 0.0),
    )
    count = sum(map(len, several))
    made = ClassSet((*NAMES, "ant", "bee")[:count], several, np.arange(count), linear, example_model(), {})
    return dataclasses.replace(made, **changes)


def decided(chosen: ClassSet, top_k: int = 5, **options: Any) -> ImageResult:
    (result,) = Decision(chosen, top_k, DecisionOptions(**options))(np.eye(1, DIM, dtype=np.float32))
    return result


def test_scores_are_those_among_the_classes_and_unknown_that_of_none() -> None:
    result = decided(classes())
    assert [p.label for p in result.predictions] == ["cup", "mug", "fog", "owl"]
    assert {p.label: p.score for p in result.predictions} == pytest.approx(dict(zip(NAMES, SCORES, strict=True)))
    assert [p.logit for p in result.predictions] == pytest.approx([9, 8, 5, -2])
    assert [p.similarity for p in result.predictions] == pytest.approx([0.9, 0.8, 0.5, -0.2])
    assert result.unknown == pytest.approx(STRANGE, rel=1e-5)
    assert (result.reason, result.label_set, result.explanation) == (None,) * 3


def for_cup(threshold: float) -> np.ndarray:
    """Least scores of which the class that comes first alone has one."""
    return np.array([threshold, np.nan, np.nan, np.nan], np.float32)


@pytest.mark.parametrize(
    ("options", "changes", "reason"),
    [
        ({}, {}, None),
        ({}, {"model": example_model(unknown=np.array([[0.0, 0.1]]))}, "probability 0.210 is above 0.100"),
        ({"threshold": 0.15}, {}, "probability 0.210 is above 0.150"),
        ({"threshold": 0.25}, {"model": UNFITTED}, None),
        ({}, {"thresholds": for_cup(0.8)}, "score 0.721 is below 0.800, the threshold of this class"),
        ({"threshold": 0.1}, {"thresholds": for_cup(0.5)}, None),
        (
            {"threshold": 0.15},
            {"thresholds": np.float32([np.nan, 0.9, np.nan, np.nan])},
            "probability 0.210 is above 0.150",
        ),
    ],
)
def test_an_unknown_image_gets_no_class_if_that_was_asked_for(options: Any, changes: Any, reason: str | None) -> None:
    """By the model's threshold, or the caller's; that of a class goes before both."""
    result = decided(classes(**changes), unknown=True, **options)
    assert (result.reason, result.predictions == ()) == (reason, reason is not None)
    guesses = decided(classes(**changes), unknown=True, guesses=True, **options)
    assert (guesses.reason, guesses.predictions[0].label) == (reason, "cup")
    if not options:
        assert (decided(classes(**changes)).reason, len(decided(classes(**changes)).predictions)) == (None, 4)


def test_a_background_class_is_never_listed_and_may_win() -> None:
    first, last = np.array([True, False, False, False]), np.array([False, False, False, True])
    result = decided(classes(background=first))
    assert [p.label for p in result.predictions] == ["mug", "fog", "owl"]
    assert result.predictions[0].score == pytest.approx(SCORES[2])  # it takes part in the softmax
    assert result.reason == f"background 'cup' scores {SCORES[0]:.3f}, more than any class"
    assert decided(classes(background=first), unknown=True).predictions == ()
    lost = decided(classes(background=last))
    assert (lost.reason, [p.label for p in lost.predictions]) == (None, ["cup", "mug", "fog"])
    with pytest.raises(InputError):
        decided(classes(background=first | ~first))
    rows = np.array(classes().embeddings)
    rows[3] = rows[0]  # as near as the best, which it does not beat
    equal = decided(classes(several=(rows,), background=last), explain=True)
    assert (equal.reason, equal.explanation and equal.explanation.background) == (None, None)


def several(chosen: ClassSet, *crops: float, top_k: int = 5) -> ImageResult:
    """The result of an image whose crops are rows at angles (degrees) to the axis that classes lie along."""
    angles = np.radians([*crops, *(5 - len(crops)) * [90.0]])
    rows = np.zeros((5, DIM), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(angles), np.sin(angles)
    (result,) = Decision(chosen, top_k, DecisionOptions(several=True))(rows)
    return result


def apart(unknown: float, **changes: Any) -> ClassSet:
    """Three classes at 0, 90 and 180 degrees, and a bias of unknown."""
    rows = np.zeros((3, DIM), np.float32)
    rows[0, 0], rows[1, 1], rows[2, 0] = 1, 1, -1
    made = classes(several=(rows,), **changes)
    return dataclasses.replace(
        made, linear=dataclasses.replace(made.linear, unknown=dataclasses.replace(made.linear.unknown, bias=unknown))
    )


def test_an_image_shows_each_class_that_a_crop_says_yes_to() -> None:
    result = several(apart(5.0), 45, 0, 180, 0, top_k=1)
    assert result.labels is not None
    yes = math.exp(10) / (math.exp(10) + math.exp(5) + 1 + math.exp(-10))
    boxes = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5), (0.5, 0.5, 1.0, 1.0)]
    assert [(one.label, one.box) for one in result.labels] == [*zip(("cup", "mug", "fog"), boxes, strict=True)]
    assert [one.score for one in result.labels] == pytest.approx([yes] * 3, abs=1e-4)
    assert [(p.label, p.logit, p.similarity) for p in result.predictions] == [
        ("cup", pytest.approx(10), pytest.approx(1))
    ]
    assert (result.reason, result.unknown_threshold) == (None, None)
    strange = math.exp(5) / (math.exp(10) + math.exp(5) + 1 + math.exp(-10))
    assert result.unknown == pytest.approx(strange, rel=1e-4)


def test_an_image_of_none_has_no_label_whatever_the_threshold_of_unknown() -> None:
    none = several(apart(11.0, model=example_model(unknown=np.array([[0.0, 1.0]]))), 0, 180)
    assert (none.labels, len(none.predictions)) == ((), 3)
    assert several(apart(5.0, model=example_model(unknown=np.array([[0.0, 0.0]]))), 0).labels != ()


def test_a_threshold_of_its_own_replaces_the_half_and_background_is_no_label() -> None:
    low = apart(11.0, thresholds=np.float32([0.2, np.nan, 0.3]))
    assert [one.label for one in several(low, 0, 180).labels or ()] == ["cup"]
    behind = apart(5.0, background=np.array([True, False, False]))
    assert [one.label for one in several(behind, 0, 180).labels or ()] == ["mug", "fog"]


def test_several_needs_a_fitted_class_model_and_stands_alone() -> None:
    with pytest.raises(InputError, match="several: needs a fitted class model"):
        several(apart(5.0, model=example_model(photos=0.0)), 0)
    for other in ({"unknown": True}, {"explain": True}, {"coverage": 0.9}):
        with pytest.raises(InputError, match="several: includes unknown"):
            DecisionOptions(several=True, **other)


def test_results_are_called_by_their_images() -> None:
    rows = np.eye(2, DIM, dtype=np.float32)
    decide = Decision(classes(), 5, DecisionOptions(True, coverage=0.9, explain=True))
    assert [result.image for result in decide(rows)] == ["image[0]", "image[1]"]
    assert [result.image for result in decide(rows, ["a.jpg", "b.jpg"])] == ["a.jpg", "b.jpg"]
    assert list(decide(rows[:0])) == []


@pytest.mark.parametrize("top_k", [1, 4])
def test_a_set_has_all_classes_that_score_enough_however_few_are_listed(top_k: int) -> None:
    wide = decided(classes(), top_k, coverage=0.9)  # by name 0.2 is enough
    assert (wide.label_set, len(wide.predictions)) == (("cup", "mug"), top_k)
    assert decided(classes(), top_k, coverage=0.8).label_set == ("cup",)
    with_photos = {3: Evidence(np.zeros(DIM), 4.0)}
    for least, expected in (((0.0, 0.0), ("cup", "mug", "fog", "owl")), ((0.9, 0.9), ()), ((0.9, 0.0), ("owl",))):
        model = example_model(sets=np.array([[0.0, 1, least[0], 1], [4.0, 1, least[1], 1]]))
        assert decided(classes(model=model, evidence=with_photos), top_k, coverage=0.9).label_set == expected


def test_an_explanation() -> None:
    why = decided(classes(), 1, explain=True).explanation
    assert why is not None
    assert (why.runner_up, why.background) == ("mug", None)
    assert why.margin == pytest.approx(SCORES[0] - SCORES[2])
    turned = [math.cos(math.acos(0.9) - math.acos(cosine)) for cosine in (0.8, 0.5, -0.2)]
    assert [name for name, _ in why.nearest] == ["mug", "fog", "owl"]
    assert [cosine for _, cosine in why.nearest] == pytest.approx(turned, abs=1e-6)
    why = decided(classes(several=(classes().embeddings[:1],)), explain=True).explanation
    assert why is not None
    assert (why.margin, why.runner_up, why.nearest) == (None, None, ())
    why = decided(classes(several=(classes().embeddings, classes().embeddings[:2])), explain=True).explanation
    assert why is not None and len(why.nearest) == 3


@pytest.mark.parametrize(
    ("chosen", "coverage"),
    [(classes(model=UNFITTED), 0.9), (classes(), 0.99), (classes(background=np.array([0, 1, 0, 0], bool)), 0.9)],
)
def test_coverage_that_cannot_be_had_is_refused(chosen: ClassSet, coverage: float) -> None:
    with pytest.raises(InputError):
        Decision(chosen, 5, DecisionOptions(coverage=coverage))


@pytest.mark.parametrize(
    ("changes", "can"),
    [
        ({}, True),
        ({"model": UNFITTED}, False),
        ({"model": UNFITTED, "thresholds": np.full(4, 0.5, np.float32)}, True),
        ({"model": UNFITTED, "background": np.array([1, 0, 0, 0], bool)}, True),
        ({"model": UNFITTED, "background": np.zeros(4, np.bool_)}, False),
    ],
)
def test_unknown_needs_a_threshold(changes: dict[str, Any], can: bool) -> None:
    chosen = classes(**changes)
    assert can_call_unknown(chosen) is can
    Decision(chosen, 5, DecisionOptions(unknown=True, threshold=0.5))
    if can:
        assert decided(chosen, unknown=True, guesses=True).predictions
    else:
        with pytest.raises(InputError):
            Decision(chosen, 5, DecisionOptions(unknown=True))


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.5},
        {"unknown": True, "threshold": math.nan},
        {"unknown": True, "threshold": 1.01},
        {"unknown": True, "threshold": -0.01},
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
        next(Decision(classes(), 1)(row))
