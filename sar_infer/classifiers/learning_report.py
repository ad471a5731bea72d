"""Learn from a stream of photos and say what it taught: `learn_stream` and its report."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sar_infer.bank import Learn
from sar_infer.classifiers.learning import CAUTIOUS, PLAIN, SAME_KIND, KnownClasses, Learning, judge, learn
from sar_infer.classifiers.spool import FeatureSpool
from sar_infer.classifiers.statistics import Statistics

_EXAMPLES = 10
_CHUNK = 1024
_LEAST = 0.01
"""Labelled photos that those of a class have to count as to be kept."""
_COUNTED = 0.5
"""Least weight of a photo that is said to count."""
_STRANGE = 1.0
"""Distance to the best class, as a share of that to the centre, from which on a photo is said to be a stranger's."""
_TOO_DIFFERENT = 1.0
"""Squared length of the translation, as a share of the spread of classes, from which on a warning says so."""


@dataclass(frozen=True)
class LearnedClass:
    """Result of a stream for one class.

    Attributes:
        name: Its name.
        photos: Photos that are answered with it after learning.
        sure: Mean responsibility with which it holds them, 0 to 1.
        counts_as: Photos with labels that they count as.
    """

    name: str
    photos: int
    sure: float
    counts_as: float


@dataclass(frozen=True)
class PhotoNote:
    """One photo of the stream: its key, the answer before and after, and how sure the latter is, 0 to 1."""

    key: str
    before: str
    after: str
    sure: float
    why: str


@dataclass(frozen=True)
class LearningReport:
    """Report on a stream; each photo counts, or is set aside as a stranger, or as doubtful.

    Attributes:
        photos: Photos that were looked at.
        counted: Photos that count for their class.
        strangers: Photos that lie no nearer to any class than to the centre of all.
        doubtful: Other photos that do not count, or for less than half.
        all_known: True if every photo was said to be of one of the classes.
        classes: What was learned of each class that has photos, most first.
        changed: Photos whose answer changes.
        examples: Some of these, the surest first.
        look_first: Photos that a person should look at first.
        shift: Share of the stream's shift that its groups have in common, as a camera's, 0 or less to 1.
        translated: Squared length of the translation, as a share of the spread of classes; 0 for none.
        different: The stream is of another kind than the photos of the statistics.
    """

    photos: int
    counted: int
    strangers: int
    doubtful: int
    all_known: bool
    classes: tuple[LearnedClass, ...]
    changed: int
    examples: tuple[PhotoNote, ...]
    look_first: tuple[PhotoNote, ...]
    shift: float
    translated: float
    different: bool


def learn_stream(
    names: Sequence[str],
    statistics: Statistics,
    scale: float,
    known: KnownClasses,
    spool: FeatureSpool,
    *,
    all_known: bool = False,
    told: Callable[[int], object] = lambda rows: None,
) -> tuple[Learn, LearningReport]:
    """Learn from a stream; return the change for a bank's log, and the report.

    Args:
        names: C class names.
        statistics: The model.
        scale: s, the logit scale.
        known: The classes.
        spool: The stream.
        all_known: Every photo is of one of the classes.
        told: Called with a number of rows whenever some have been worked on.
    """
    rows = spool.rows
    learning = learn(statistics, scale, known, rows, all_known=all_known, told=told)
    columns = np.flatnonzero(learning.counts >= _LEAST)
    change = Learn(
        tuple(names[column] for column in columns.tolist()),
        learning.sums[columns].astype(np.float32),
        learning.counts[columns],
        learning.translation.astype(np.float32),
        {"shift": learning.shift, "translated": learning.shifted, "all_known": float(all_known)},
        len(spool),
    )
    return change, _report(names, statistics, scale, known, spool, learning, all_known)


def _report(
    names: Sequence[str],
    statistics: Statistics,
    scale: float,
    known: KnownClasses,
    spool: FeatureSpool,
    learning: Learning,
    all_known: bool,
) -> LearningReport:
    rows, keys = spool.rows, spool.keys()
    counted = strangers = changed = 0
    won, held = np.zeros(len(names)), np.zeros(len(names))
    examples: list[tuple[float, int, PhotoNote]] = []
    first: list[tuple[float, int, PhotoNote]] = []
    number = 0
    for start in range(0, len(rows), _CHUNK):
        chunk = np.asarray(rows[start : start + _CHUNK])
        judged = judge(statistics, scale, known, learning, chunk, caution=PLAIN if all_known else CAUTIOUS)
        won += np.bincount(judged.after, minlength=len(names))
        held += np.bincount(judged.after, judged.scores, len(names))
        for position, (before, after) in enumerate(zip(judged.before.tolist(), judged.after.tolist(), strict=True)):
            key, sure, far = next(keys), float(judged.scores[position]), float(judged.distances[position])
            counts = judged.counted[position] >= _COUNTED
            stranger = not all_known and not counts and far >= _STRANGE
            counted, strangers, changed = counted + bool(counts), strangers + stranger, changed + (before != after)
            number += 1
            why = "changes" if before != after else "like no class" if stranger else "not sure"
            note = PhotoNote(key, names[before], names[after], round(sure, 4), why)
            if before != after:
                _keep(examples, sure, number, note)
            _keep(first, (before != after) + stranger + 1 - sure, number, note)
    classes = [
        LearnedClass(
            names[c], int(won[c]), round(float(held[c] / max(won[c], 1)), 4), round(float(learning.counts[c]), 3)
        )
        for c in np.argsort(-won, kind="stable").tolist()
        if won[c] or learning.counts[c] >= _LEAST
    ]
    return LearningReport(
        len(spool),
        counted,
        strangers,
        len(spool) - counted - strangers,
        all_known,
        tuple(classes),
        changed,
        tuple(note for *_, note in sorted(examples, reverse=True)),
        tuple(note for *_, note in sorted(first, reverse=True)),
        round(learning.shift, 4),
        round(learning.shifted, 4),
        learning.shifted >= _TOO_DIFFERENT or learning.shift >= SAME_KIND[1],
    )


def _keep(heap: list[tuple[float, int, PhotoNote]], value: float, number: int, note: PhotoNote) -> None:
    """Keep the photos of the largest values; of equal ones the first."""
    heapq.heappush(heap, (value, -number, note))
    if len(heap) > _EXAMPLES:
        heapq.heappop(heap)
