"""An evaluation as one HTML file, with pictures of the photos that it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sar_infer.evaluation.evaluation import Answer, Evaluation
from sar_infer.evaluation.html import write_page
from sar_infer.images.load import ImageSource
from sar_infer.images.thumbnail import picture_of, short_name

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
    pairs = [pair for at, pair in enumerate(evaluation.confused[:MOST_PAIRS]) if pair.count > 1 or at < _FEW_PAIRS]
    shown = [answer.image for answer in mistakes[:MOST_WORST]]
    shown += [image for pair in pairs for image in pair.images]
    order = list(dict.fromkeys(shown))
    positions = {image: position for position, image in enumerate(order)}
    content = dataclasses.asdict(
        dataclasses.replace(evaluation, answers=(), confused=(), left_out=(), label_check=None, photo_curve=None)
    )
    content |= {
        "facts": dict(facts or {}),
        "names": names,
        "cells": [[row, column, count] for (row, column), count in sorted(cells.items())],
        "photos": [_photo(by_name[image], sources) for image in order],
        "worst": [positions[answer.image] for answer in mistakes[:MOST_WORST]],
        "mistakes": len(mistakes),
        "curve": _curve(evaluation),
        "photo_curve": evaluation.photo_curve and evaluation.photo_curve.to_json(),
        "confused": [
            {**dataclasses.asdict(pair), "images": [positions[image] for image in pair.images]} for pair in pairs
        ],
        "left_out": {
            kind: sum(item.kind == kind for item in evaluation.left_out)
            for kind in ("learned", "repeated", "unreadable")
        },
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
    return dataclasses.asdict(answer) | {"image": short_name(answer.image), "picture": picture}
