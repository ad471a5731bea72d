"""An evaluation for people: lines of text, and an HTML page with pictures of the photos that it shows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from sar_infer.evaluation.curve import curve_lines
from sar_infer.evaluation.evaluation import Evaluation
from sar_infer.evaluation.html import write_page
from sar_infer.evaluation.reading import LeftOut
from sar_infer.images.load import ImageSource
from sar_infer.images.thumbnail import picture_of, short_name
from sar_infer.storage.strict_json import json_values

_MOST_CLASSES, _MOST_PAIRS, _LONGEST = 20, 10, 24
"""Classes and pairs as text, and characters of a name."""
_NUMERIC = "0123456789+-~·"
MOST_WORST = 48
"""Photos on the page: the surest wrong answers."""
MOST_PAIRS = 24
"""Pairs of classes that the page shows with photos; of those that were confused once, only a few."""
_FEW_PAIRS = 6
_MOST_POINTS = 200


def text_lines(evaluation: Evaluation, width: int = 100) -> Iterator[str]:
    """Yield the lines.

    Args:
        evaluation: What was measured.
        width: Characters of a line; the matrix is left out where it does not fit.
    """
    yield from _summary(evaluation)
    yield from _trade(evaluation)
    yield from _classes(evaluation)
    yield from _pairs(evaluation)
    yield from _matrix(evaluation, width)
    if evaluation.photo_curve is not None:
        yield from ("", *curve_lines(evaluation.photo_curve))


def left_out_lines(left_out: Sequence[LeftOut]) -> Iterator[str]:
    """Yield a line for each reason for which photos were left out, with the first photo; none for unreadable photos."""
    counts = Counter(item.kind for item in left_out)
    for kind in ("learned", "repeated"):
        if counts[kind]:
            first = next(item for item in left_out if item.kind == kind)
            count = "1 photo" if counts[kind] == 1 else f"{counts[kind]:,} photos"
            yield f"left out {count}, such as {first.image} of {first.label!r}: {first.reason}"


def _summary(evaluation: Evaluation) -> Iterator[str]:
    scores, unknowns = evaluation.calibration, evaluation.unknowns
    yield (
        f"{evaluation.accuracy.of:,} photos of {len(evaluation.per_class):,} classes, among {evaluation.classes:,} to "
        "choose from"
    )
    yield f"accuracy      {evaluation.accuracy}; among the best five {evaluation.among_best.share:.1%}"
    yield (
        f"scores        {scores.mean_score:.1%} on average where {scores.accuracy:.1%} are right; calibration error "
        f"{scores.error:.1%}, of which chance explains {min(scores.error, scores.by_chance):.1%}"
    )
    if unknowns.known is not None:
        above = "" if unknowns.threshold is None else f"; threshold of its probability: {unknowns.threshold:.3f}"
        yield f"unknown       reported for {unknowns.known} of these photos{above}"
    if unknowns.unknown_photos:
        names = ", ".join(map(repr, unknowns.unknown_classes[:3])) + ", …" * (len(unknowns.unknown_classes) > 3)
        verdict = "no threshold of unknown is set"
        if unknowns.unknown_images is not None:
            verdict = f"{unknowns.unknown_images} reported as unknown"
        yield (
            f"other photos  {unknowns.unknown_photos:,} of classes that are not there ({names}): {verdict}; more "
            f"probably unknown than a photo of the classes in {unknowns.auroc:.0%} of pairs"
        )


def _trade(evaluation: Evaluation) -> Iterator[str]:
    """Yield the table of thresholds, the highest first, with the present one marked."""
    unknowns = evaluation.unknowns
    if not unknowns.unknown_photos:
        yield (
            "other photos  none, so how many are found as unknown was not measured; add folders of photos that show "
            "none of the classes to the photos"
        )
        return
    rows = [(one.threshold, f"up to {one.false_alarms:.0%}", one.known, one.unknown_images) for one in unknowns.trade]
    if unknowns.threshold is not None:
        rows.append((unknowns.threshold, "now", unknowns.known, unknowns.unknown_images))
    rows.sort(key=lambda row: -row[0])
    columns = {"": "", "threshold": ".3f", "false alarms of these photos": "", "other photos found": ""}
    yield ""
    yield from table(columns, [(mark, at, known, others) for at, mark, known, others in rows])


def _classes(evaluation: Evaluation) -> Iterator[str]:
    shown = evaluation.per_class[:_MOST_CLASSES]
    columns = {"class": "", "accuracy": ".1%", "95 % interval": "", "right of photos": "", "answered": ","}
    rows = [
        (
            _cut(one.name),
            one.accuracy,
            one.accuracy.interval,
            f"{one.accuracy.count:,} of {one.accuracy.of:,}",
            one.answered,
            one.taken_for and _cut(one.taken_for),
        )
        for one in shown
    ]
    yield ""
    yield from table(columns | {"most often called": ""}, rows)
    if rest := len(evaluation.per_class) - len(shown):
        yield f"and {rest:,} classes that do better (--format json or --html lists all)"


def _pairs(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.confused:
        return
    yield from ("", "confused most; check their labels, or add photos that show the difference")
    for pair in evaluation.confused[:_MOST_PAIRS]:
        yield f"  {pair.label!r} called {pair.answer!r}: {pair.count} of {pair.of}, such as {pair.images[0]}"
    if rest := sum(pair.count for pair in evaluation.confused[_MOST_PAIRS:]):
        yield f"  and {rest:,} other mistake{'' if rest == 1 else 's'}"


def _matrix(evaluation: Evaluation, width: int) -> Iterator[str]:
    """Yield the confusion matrix: a row for each class with photos, a column for each, and one for other answers."""
    counts, names = evaluation.confusion, sorted(one.name for one in evaluation.per_class)
    answers = [*names, *[None] * any(answer is None for _, answer in counts)]
    rows = [
        (f"{row} {_cut(name)}", *(str(counts[name, answer] or "·") for answer in answers))
        for row, name in enumerate(names, 1)
    ]
    heads = ["", *map(str, range(1, len(names) + 1)), "other"][: len(answers) + 1]
    lines = [*table(dict.fromkeys(heads, ""), rows, " ")]
    if len(names) > 1 and max(map(len, lines)) <= width:
        yield from ("", "matrix: a row for each class, a column for each answer", *lines)


def table(columns: Mapping[str, str], rows: Iterable[Sequence[object]], gap: str = "  ") -> Iterator[str]:
    """Yield a head and a line for each row: numbers to the right, the first column and words to the left.

    Args:
        columns: How the cells below each head are formatted, as ``format`` has it; None is a dash.
        rows: A cell for each column.
        gap: Between two columns.
    """
    texts = [
        ["-" if cell is None else format(cell, how) for cell, how in zip(row, columns.values(), strict=True)]
        for row in rows
    ]
    cells = [*zip(columns, *texts, strict=True)]
    words = [not number or not all(cell[:1] in _NUMERIC for cell in of[1:]) for number, of in enumerate(cells)]
    sizes = [f"{'<' if left else '>'}{max(map(len, of))}" for left, of in zip(words, cells, strict=True)]
    for row in (columns, *texts):
        yield gap.join(f"{cell:{size}}" for cell, size in zip(row, sizes, strict=True)).rstrip()


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def write_evaluation(
    path: Path,
    evaluation: Evaluation,
    title: str,
    facts: Mapping[str, str] | None = None,
    sources: Callable[[str], ImageSource] = str,
) -> None:
    """Write the page of an evaluation: one HTML file that holds all it shows.

    Args:
        path: The file.
        evaluation: What was measured.
        title: What was evaluated.
        facts: What answered, and on which photos, by name, for the foot of the page.
        sources: Returns the photo of an answer by its name, which is its path by default; one that cannot be read has
            no picture.

    Raises:
        WriteError: The file cannot be written.
    """
    answerable = [answer for answer in evaluation.answers if not answer.absent]
    by_name = {answer.image: answer for answer in answerable}
    mistakes = sorted((answer for answer in answerable if not answer.right), key=lambda answer: -answer.score)
    worst = [answer.image for answer in mistakes[:MOST_WORST]]
    pairs = [pair for at, pair in enumerate(evaluation.confused[:MOST_PAIRS]) if pair.count > 1 or at < _FEW_PAIRS]
    shown = dict.fromkeys([*worst, *(image for pair in pairs for image in pair.images)])
    positions = {image: number for number, image in enumerate(shown)}
    left_out = Counter(item.kind for item in evaluation.left_out)
    content = json_values(dataclasses.replace(evaluation, answers=()))
    content |= {
        "facts": dict(facts or {}),
        "names": sorted(one.name for one in evaluation.per_class),
        "cells": [[*pair, count] for pair, count in evaluation.confusion.items()],
        "photos": [
            vars(by_name[image]) | {"image": short_name(image), "picture": picture_of(sources(image))}
            for image in shown
        ],
        "worst": [*map(positions.get, worst)],
        "mistakes": len(mistakes),
        "curve": _curve(evaluation),
        "confused": [json_values(pair) | {"images": [*map(positions.get, pair.images)]} for pair in pairs],
        "left_out": {kind: left_out[kind] for kind in ("learned", "repeated", "unreadable")},
    }
    write_page(path, "evaluation", title, content)


def _curve(evaluation: Evaluation) -> list[tuple[float, float]]:
    """Return shares of known photos and of others above the same threshold, for up to 200 thresholds from 1 to 0."""
    if not evaluation.unknowns.unknown_photos:
        return []
    answerable, others = (
        np.array([answer.unknown for answer in evaluation.answers if answer.absent is absent])
        for absent in (False, True)
    )
    thresholds = np.sort(answerable)[::-1][:: -(-len(answerable) // _MOST_POINTS)]
    points = [(float((answerable > at).mean()), float((others > at).mean())) for at in thresholds]
    return [*points, (1.0, 1.0)]
