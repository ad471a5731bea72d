"""Suggestions for the classes of a call: what they answer for unlabelled photos, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.class_model.groups import NEAREST, Answers
from sar_infer.class_model.groups import suggest as suggest_for
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet

_ROWS = 256
"""Photos that are ranked at once."""
_ANSWERS = 2
"""Best classes that are reported for a photo worth a label."""


def suggest(rows: Floats, classes: ClassSet, keys: Sequence[str] | Sequence[int]) -> dict[str, Any]:
    """Return groups of photos and the photos worth a label, as JSON has them.

    Args:
        rows: (N, D) unit image features.
        classes: C classes. Statistics of theirs say what looks alike; without any, photos are compared around their
            mean, all directions alike.
        keys: N names or numbers of the photos.

    Raises:
        InputError: scipy is not installed.
    """
    content: dict[str, Any] = {"photos": len(keys), "classes": len(classes.names), "groups": [], "labels": []}
    ranked = [ranking.rank(rows[start : start + _ROWS], classes, NEAREST) for start in range(0, len(rows), _ROWS)]
    if not ranked:
        return content
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
    names = [classes.names[column] for column in columns.tolist()]
    best = ranking.rank(rows[suggestions.labels], classes, _ANSWERS)

    def answers(pairs: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
        return [{"label": name, "score": round(score, 4)} for name, score in pairs]

    for group in suggestions.groups:
        like = None if group.like is None else names[group.like]
        nearest = answers((names[number], score) for number, score in group.nearest)
        photos = [keys[row] for row in group.photos.tolist()]
        content["groups"].append({"size": len(photos), "like": like, "nearest": nearest, "photos": photos})
    for row, of_photo, sure in zip(suggestions.labels.tolist(), best.columns, best.scores.tolist(), strict=True):
        pairs = zip([classes.names[column] for column in of_photo], sure, strict=True)
        content["labels"].append({"photo": keys[row], "answers": answers(pairs)})
    return content
