"""An evaluation as one HTML file, with pictures of the photos that it shows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sar_infer.evaluation.evaluation import Answer, Evaluation
from sar_infer.evaluation.html import write_page
from sar_infer.images.load import ImageSource
from sar_infer.images.thumbnail import picture_of, short_name
from sar_infer.storage.strict_json import json_values

MOST_WORST = 48
"""Photos that are shown: the surest wrong answers."""
MOST_PAIRS = 24
"""Pairs of classes that are shown with photos; of those that were confused once, only a few."""
_FEW_PAIRS = 6
_MOST_POINTS = 200


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
    names, cells = evaluation.confusion
    by_name = {answer.image: answer for answer in answerable}
    mistakes = sorted((answer for answer in answerable if not answer.right), key=lambda answer: -answer.score)
    worst = [answer.image for answer in mistakes[:MOST_WORST]]
    pairs = [pair for at, pair in enumerate(evaluation.confused[:MOST_PAIRS]) if pair.count > 1 or at < _FEW_PAIRS]
    positions = {
        image: n for n, image in enumerate(dict.fromkeys(worst + [one for pair in pairs for one in pair.images]))
    }
    left_out = Counter(item.kind for item in evaluation.left_out)
    content = json_values(dataclasses.replace(evaluation, answers=()))
    content |= {
        "facts": dict(facts or {}),
        "names": names,
        "cells": [[row, column, count] for (row, column), count in sorted(cells.items())],
        "photos": [_photo(by_name[image], sources) for image in positions],
        "worst": [*map(positions.get, worst)],
        "mistakes": len(mistakes),
        "curve": _curve(evaluation),
        "confused": [json_values(pair) | {"images": [*map(positions.get, pair.images)]} for pair in pairs],
        "left_out": {kind: left_out[kind] for kind in ("learned", "repeated", "unreadable")},
    }
    write_page(path, "evaluation", title, content)


def _curve(evaluation: Evaluation) -> list[tuple[float, float]]:
    """Return shares of known photos and of others above the same threshold, for up to 200 thresholds from 1 to 0."""
    known, others = (
        np.array([answer.unknown for answer in evaluation.answers if answer.absent is absent])
        for absent in (False, True)
    )
    if not len(others):
        return []
    thresholds = np.sort(known)[::-1]
    if len(thresholds) > _MOST_POINTS:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, _MOST_POINTS).astype(np.intp)]
    points = [(float((known > at).mean()), float((others > at).mean())) for at in thresholds]
    return [*points, (1.0, 1.0)]


def _photo(answer: Answer, sources: Callable[[str], ImageSource]) -> dict[str, Any]:
    picture = picture_of(sources(answer.image))
    return vars(answer) | {"image": short_name(answer.image), "picture": picture}
