"""Evaluations against loops over the answers; the findings; the lines for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import pytest

from sar_infer.errors import InputError
from sar_infer.evaluation.evaluation import Answer, Evaluation, evaluate
from sar_infer.evaluation.report import text_lines
from sar_infer.measures import wilson

NAMES = ("ant", "bee", "cat", "dog")


def answer(label: str, best: str, score: float = 0.6, number: int = 0, **changes: object) -> Answer:
    rank = 1 if label == best else None
    return Answer(f"{label}/{number}.jpg", label, best, score, rank, score if rank else None, **changes)


def of(counts: dict[tuple[str, str], int], score: float = 0.6, **changes: object) -> list[Answer]:
    return [
        answer(label, best, score, number, **changes)
        for (label, best), count in counts.items()
        for number in range(count)
    ]


def random_answers() -> Iterator[Answer]:
    generator = np.random.default_rng(0)
    for number in range(400):
        label, best = (NAMES[at] for at in generator.choice(4, 2, p=[0.4, 0.3, 0.2, 0.1]))
        score = float(generator.uniform(0.25, 1))
        yield answer(label, best, score, number, unknown=1 - score, called_unknown=score < 0.4)
    for number in range(30):
        score = float(generator.uniform(0.1, 0.7))
        yield answer("owl", "cat", score, number, unknown=1 - score, called_unknown=score < 0.4, absent=True)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate([*random_answers()], 4, tells_unknown=True)


def test_accuracy_of_all_and_of_each_class(evaluation: Evaluation) -> None:
    of_classes = [one for one in random_answers() if one.label != "owl"]
    right = sum(one.label == one.answer for one in of_classes)
    assert (evaluation.accuracy.count, evaluation.accuracy.of) == (right, 400)
    assert (evaluation.accuracy.low, evaluation.accuracy.high) == wilson(right, 400)
    assert [one.accuracy.share for one in evaluation.per_class] == sorted(
        one.accuracy.share for one in evaluation.per_class
    )
    for result in evaluation.per_class:
        of_class = [one for one in of_classes if one.label == result.name]
        assert (result.accuracy.count, result.accuracy.of) == (
            sum(one.answer == result.name for one in of_class),
            len(of_class),
        )
        assert result.answered == sum(one.answer == result.name for one in of_classes)
        others = [one.answer for one in of_class if one.answer != result.name]
        assert others.count(str(result.taken_for)) == max(others.count(name) for name in NAMES)


def test_pairs_and_their_photos(evaluation: Evaluation) -> None:
    of_classes = [one for one in random_answers() if one.label != "owl"]
    assert sum(pair.count for pair in evaluation.confused) == sum(one.label != one.answer for one in of_classes)
    for pair in evaluation.confused:
        same = [one for one in of_classes if (one.label, one.answer) == (pair.label, pair.answer)]
        assert (pair.count, pair.of) == (len(same), sum(one.label == pair.label for one in of_classes))
        surest = sorted(same, key=lambda one: -one.score)[: len(pair.images)]
        assert pair.images == tuple(one.image for one in surest)


def test_scores_and_unknown_photos(evaluation: Evaluation) -> None:
    everything = [*random_answers()]
    of_classes, absent = ([one for one in everything if one.absent is flag] for flag in (False, True))
    scores = evaluation.calibration
    assert scores.mean_score == pytest.approx(np.mean([one.score for one in of_classes]))
    assert scores.accuracy == pytest.approx(evaluation.accuracy.share)
    assert sum(one.count for one in scores.bins) == 400
    unknowns = evaluation.unknowns
    assert unknowns.known is not None
    assert unknowns.unknown_images is not None
    assert unknowns.known.share == pytest.approx(np.mean([one.score < 0.4 for one in of_classes]))
    assert unknowns.unknown_images.share == pytest.approx(np.mean([one.score < 0.4 for one in absent]))
    assert unknowns.auroc == pytest.approx(np.mean([a.score > b.score for a in of_classes for b in absent]))
    assert unknowns.unknown_classes == ("owl",)


def test_the_trade_of_thresholds_as_a_loop_counts_it(evaluation: Evaluation) -> None:
    known = sorted(one.unknown for one in random_answers() if not one.absent)
    others = [one.unknown for one in random_answers() if one.absent]
    assert [one.false_alarms for one in evaluation.unknowns.trade] == [0.01, 0.02, 0.05, 0.1, 0.2]
    for one in evaluation.unknowns.trade:
        # the k-th largest of 400, so that of another photo k in 401 are above it
        lowest = known[-1 - int(one.false_alarms * 399 + 1e-9)]
        assert one.threshold == lowest
        assert sum(value > lowest for value in known) <= one.false_alarms * 400
        assert one.known is not None
        assert one.known.count == sum(value > lowest for value in known)
        assert one.unknown_images is not None
        found = sum(value > lowest for value in others)
        assert (one.unknown_images.share, one.unknown_images.low) == (found / 30, wilson(found, 30)[0])
    lines = [
        *text_lines(dataclasses.replace(evaluation, unknowns=dataclasses.replace(evaluation.unknowns, threshold=0)))
    ]
    rows = [line[:9].strip() for line in lines if line.startswith(("up to", "now"))]
    assert rows == ["up to 1%", "up to 2%", "up to 5%", "up to 10%", "up to 20%", "now"]


def test_without_other_photos_the_trade_is_not_measured() -> None:
    evaluation = evaluate(MIXED, 4)
    assert all(one.unknown_images is None for one in evaluation.unknowns.trade)
    text = "\n".join(text_lines(evaluation))
    assert "other photos  none, so how many are found as unknown was not measured; add folders" in text
    assert "up to 5%" not in text


def test_it_is_json_and_nothing_is_to_evaluate_without_a_known_class(evaluation: Evaluation) -> None:
    assert json.loads(json.dumps(evaluation.to_json()))["accuracy"]["of"] == 400
    with pytest.raises(InputError, match=r"none of the labels \('owl'\) is a class"):
        evaluate([answer("owl", "cat", absent=True)], 4)


MIXED = of({("ant", "ant"): 9, ("bee", "bee"): 5, ("bee", "ant"): 5})
"""Half of the photos of one class are called another."""


def test_lines_for_people(evaluation: Evaluation) -> None:
    lines = [*text_lines(evaluation)]
    text = "\n".join(lines)
    pair = evaluation.confused[0]
    assert f"'{pair.label}' called '{pair.answer}': {pair.count} of {pair.of}, such as {pair.images[0]}" in text
    assert "\nunknown       reported for " in text
    assert "\nother photos  30 of classes that are not there ('owl'): " in text and " reported as unknown; " in text
    at = lines.index("matrix: a row for each class, a column for each answer")
    for name, line in zip(NAMES, lines[at + 2 : at + 6], strict=True):
        counts = [
            sum(one.label == name and one.answer == other for one in random_answers() if not one.absent)
            for other in NAMES
        ]
        assert line.split() == [str(NAMES.index(name) + 1), name, *[str(count or "·") for count in counts]]
    assert "matrix" not in "\n".join(text_lines(evaluation, width=15))
