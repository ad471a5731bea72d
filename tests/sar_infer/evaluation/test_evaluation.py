"""Evaluations against loops over the answers; the advice on mistakes; the lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from sar_infer.bank_advice import Finding
from sar_infer.evaluation import Answer, Evaluation, Facts, LeftOut, advise, evaluate, left_out_lines, text_lines
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
        yield answer(label, best, score, number, unknown=score < 0.4)
    for number in range(30):
        score = float(generator.uniform(0.1, 0.7))
        yield answer("owl", "cat", score, number, unknown=score < 0.4, stranger=True)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    result = evaluate([*random_answers()], 4, unknown_by="score")
    assert result is not None
    return result


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
    of_classes, strangers = ([one for one in everything if one.stranger is flag] for flag in (False, True))
    scores = evaluation.calibration
    assert scores.mean_score == pytest.approx(np.mean([one.score for one in of_classes]))
    assert scores.accuracy == pytest.approx(evaluation.accuracy.share)
    assert sum(one.count for one in scores.bins) == 400
    for one in scores.bins:
        members = [each for each in of_classes if one.low < each.score <= one.high]
        assert one.count == len(members)
        assert one.accuracy == (pytest.approx(np.mean([each.right for each in members])) if members else None)
    unknowns = evaluation.unknowns
    assert unknowns.known is not None
    assert unknowns.strangers is not None
    assert unknowns.known.share == pytest.approx(np.mean([one.score < 0.4 for one in of_classes]))
    assert unknowns.strangers.share == pytest.approx(np.mean([one.score < 0.4 for one in strangers]))
    assert unknowns.auroc == pytest.approx(np.mean([a.score > b.score for a in of_classes for b in strangers]))
    assert unknowns.stranger_classes == ("owl",)


def test_it_is_json_and_nothing_is_to_evaluate_without_a_known_class(evaluation: Evaluation) -> None:
    assert json.loads(json.dumps(evaluation.to_json()))["accuracy"]["of"] == 400
    assert evaluate([answer("owl", "cat", stranger=True)], 4) is None


def advice_on(
    answers: list[Answer], facts: Facts, classes: int = 4
) -> dict[str, list[tuple[tuple[str, ...], str | None]]]:
    evaluation = evaluate(answers, classes)
    assert evaluation is not None
    result: dict[str, list[tuple[tuple[str, ...], str | None]]] = {}
    for one in advise(evaluation, facts):
        result.setdefault(one.kind, []).append((one.classes, one.command))
    return result


MIXED = of({("ant", "ant"): 9, ("bee", "bee"): 5, ("bee", "ant"): 5})
"""Half of the photos of one class are called another."""
MUTUAL = of({("ant", "ant"): 5, ("ant", "bee"): 5, ("bee", "bee"): 5, ("bee", "ant"): 5})
UNSHOWN = of({("ant", "ant"): 9, ("bee", "bee"): 9, ("ant", "dog"): 2, ("bee", "dog"): 2})
RIGHT = of({("ant", "ant"): 9, ("bee", "bee"): 8})
STRANGE = [*MIXED, *of({("bees", "bee"): 3, ("owl", "cat"): 2}, stranger=True)]
TOO_SURE = of({("ant", "ant"): 50, ("ant", "bee"): 50}, score=0.95)
MANY = Facts({"ant": 20, "bee": 20})
NEAR = Facts(findings=[Finding("near-duplicate", "warning", "bee", "is near", "ant")])
ODD = [Finding("wording", "warning", name, "looks like a file name", f"{name} of bees") for name in ("ant", "bee")]
ADD_BEE, MERGE = "add BANK_FILE bee --photos PHOTOS", "remove BANK_FILE bee && sar-bank alias BANK_FILE ant bee"


@pytest.mark.parametrize(
    ("answers", "facts", "kind", "advice"),
    [
        (MIXED, Facts({"ant": 20, "bee": 2}), "photos", [("bee", ADD_BEE)]),
        (MIXED, Facts({"ant": 1, "bee": 3}), "photos", [("ant", "add BANK_FILE ant --photos PHOTOS")]),
        (MIXED, Facts(), "photos", [("bee", ADD_BEE)]),  # it loses the most
        (MIXED, MANY, "describe", [("bee ant", None)]),
        (MUTUAL, MANY, "merge", [("ant bee", MERGE)]),
        (MIXED, NEAR, "merge", [("bee ant", "remove BANK_FILE ant && sar-bank alias BANK_FILE bee ant")]),
        (UNSHOWN, Facts(), "others", [("dog", "remove BANK_FILE dog")]),
        (MIXED, Facts({}, ODD), "name", [("bee", "rename BANK_FILE bee 'bee of bees' --embed")]),
        ([*RIGHT, answer("bee", "ant", 0.97)], Facts(), "labels", [("bee", None)]),
        ([*RIGHT, answer("bee", "ant", 0.7)], Facts(), "labels", None),
        (TOO_SURE, Facts(), "calibrate", [("", "calibrate BANK_FILE --photos PHOTOS")]),
        (of({("ant", "ant"): 19, ("ant", "bee"): 1}, score=0.95), Facts(), "calibrate", None),
        (
            STRANGE,
            Facts(alike={"bees": ["bee"]}),
            "class",
            [("bees bee", "alias BANK_FILE bee bees"), ("owl", "add BANK_FILE owl")],
        ),
        (MIXED, Facts(fittable=True), "fit", [("", "fit BANK_FILE")]),
        (of({("ant", "ant"): 9}), Facts(fittable=True), "fit", None),
        (MIXED, Facts(command=None), "photos", [("bee", None)]),
    ],
)
def test_advice(answers: list[Answer], facts: Facts, kind: str, advice: list[tuple[str, str | None]] | None) -> None:
    """Classes and command of one kind of advice; a kind that is not given has neither."""
    expected = advice and [(tuple(names.split()), command and f"sar-bank {command}") for names, command in advice]
    by_kind = advice_on(answers, facts)
    entries = by_kind.get(kind)
    if kind == "describe":
        entries = [(classes, None) for classes, _ in entries or ()]
    assert entries == expected
    if kind == "fit" and advice:
        assert next(iter(by_kind)) == "fit"  # it comes first


def test_advice_says_what_is_the_matter() -> None:
    for answers, beginning in (
        (STRANGE, "'bees', 'owl' are no class to choose from; add those whose photos"),
        (TOO_SURE, "The best score is 95% on average where 50% are right: scores are too sure; calibrate"),
    ):
        evaluation = evaluate(answers, 4)
        assert evaluation is not None
        assert any(one.message.startswith(beginning) for one in advise(evaluation, Facts()))


def test_a_mistake_now_and_then_gets_no_advice() -> None:
    rare = of({("ant", "ant"): 40, ("bee", "bee"): 38, ("bee", "ant"): 2})
    assert advice_on(rare, Facts()).keys() <= {"calibrate"}


def test_lines_for_people(evaluation: Evaluation) -> None:
    lines = [*text_lines(evaluation)]
    text = "\n".join(lines)
    pair = evaluation.confused[0]
    assert f"'{pair.label}' called '{pair.answer}': {pair.count} of {pair.of}, such as {pair.images[0]}" in text
    assert "\nunknown       said of " in text
    assert "\nother photos  30 of classes that are not there ('owl'): unknown is said of " in text
    at = lines.index("matrix: a row for each class, a column for each answer")
    for name, line in zip(NAMES, lines[at + 2 : at + 6], strict=True):
        counts = [
            sum(one.label == name and one.answer == other for one in random_answers() if not one.stranger)
            for other in NAMES
        ]
        assert line.split() == [str(NAMES.index(name) + 1), name, *[str(count or "·") for count in counts]]
    assert "matrix" not in "\n".join(text_lines(evaluation, width=15))


def test_photos_that_were_left_out_have_a_line() -> None:
    left_out = [LeftOut("a.jpg", "ant", "learned", "seen"), LeftOut("b.jpg", "bee", "learned", "seen")]
    evaluation = evaluate(MIXED, 4, left_out=left_out)
    assert evaluation is not None
    assert [*left_out_lines(evaluation)] == ["left out 2 photos, such as a.jpg of 'ant': seen"]
