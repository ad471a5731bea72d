"""An evaluation as one HTML file, with pictures of the photos that it shows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sar_infer.evaluation.evaluation import Evaluation
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
    known = [answer for answer in evaluation.answers if not answer.absent]
    by_name = {answer.image: answer for answer in known}
    mistakes = sorted((answer for answer in known if not answer.right), key=lambda answer: -answer.score)
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
    known, others = (
        np.array([answer.unknown for answer in evaluation.answers if answer.absent is absent])
        for absent in (False, True)
    )
    thresholds = np.sort(known)[::-1][:: -(-len(known) // _MOST_POINTS)]
    points = [(float((known > at).mean()), float((others > at).mean())) for at in thresholds]
    return [*points, (1.0, 1.0)]
