"""Suggestions for the classes of a call: what they answer for unlabelled photos, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.class_model.groups import NEAREST, Answers, Suggestions
from sar_infer.class_model.groups import suggest as suggest_for
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet

_ROWS = 256
"""Photos that are ranked at once."""
_ANSWERS = 2
"""Best classes that are reported for a photo worth a label."""


def suggest(rows: Floats, classes: ClassSet) -> Suggestions:
    """Return groups of photos and the photos worth a label; classes are given by their columns in the set.

    Args:
        rows: (N, D) unit image features.
        classes: C classes. Statistics of theirs say what looks alike; without any, photos are compared around their
            mean, all directions alike.

    Raises:
        InputError: scipy is not installed.
    """
    ranked = [ranking.rank(rows[start : start + _ROWS], classes, NEAREST) for start in range(0, len(rows), _ROWS)]
    if not ranked:
        return Suggestions((), np.empty(0, np.intp))
    answered = np.concatenate([one.columns for one in ranked])
    columns, numbers = np.unique(answered, return_inverse=True)
    fitted = classes.evidence or classes.model.slope
    shift = np.float32(0) if classes.translation is None else classes.translation
    means = classes.means(columns) if fitted else np.zeros((len(columns), rows.shape[1]))
    counts = classes.photos[columns].astype(np.int64)
    scores = np.concatenate([one.scores for one in ranked])
    suggestions = suggest_for(
        classes.model if fitted else None, rows + shift, Answers(numbers.reshape(answered.shape), scores, means, counts)
    )
    groups = tuple(
        dataclasses.replace(
            group,
            like=None if group.like is None else int(columns[group.like]),
            nearest=tuple((int(columns[row]), score) for row, score in group.nearest),
        )
        for group in suggestions.groups
    )
    return Suggestions(groups, suggestions.labels)


def described(
    suggestions: Suggestions, rows: Floats, classes: ClassSet, keys: Sequence[str] | Sequence[int]
) -> dict[str, Any]:
    """Return suggestions as JSON has them, with names instead of numbers.

    Args:
        suggestions: Of `suggest`.
        rows: (N, D) unit image features.
        classes: The classes of the call.
        keys: N names or numbers of the photos.
    """
    best = ranking.rank(rows[suggestions.labels], classes, _ANSWERS)

    def answers(columns: Iterable[int], scores: Iterable[float]) -> list[dict[str, Any]]:
        pairs = zip(columns, scores, strict=True)
        return [{"label": classes.names[column], "score": round(score, 4)} for column, score in pairs]

    return {
        "photos": len(keys),
        "classes": len(classes.names),
        "groups": [
            {
                "size": len(group.photos),
                "like": None if group.like is None else classes.names[group.like],
                "nearest": answers(*zip(*group.nearest, strict=True)) if group.nearest else [],
                "photos": [keys[row] for row in group.photos.tolist()],
            }
            for group in suggestions.groups
        ],
        "labels": [
            {"photo": keys[row], "answers": answers(best.columns[number].tolist(), best.scores[number].tolist())}
            for number, row in enumerate(suggestions.labels.tolist())
        ],
    }
