"""Learn from a stream of photos, and report what it taught."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sar_infer.bank import ClassBank, Learned
from sar_infer.class_model.adapt import SAME_KIND, Classes, adapt
from sar_infer.class_model.model import ClassModel, linear, log_probabilities, scores_of
from sar_infer.class_model.spool import FeatureSpool

_EXAMPLES = 10
_MOST_CLASSES = 20
_MOST_UNREADABLE = 3
_CHUNK = 1024
_LEAST = 0.01
"""Labelled photos that those of a class have to count as to be stored."""


@dataclass(frozen=True)
class LearnedClass:
    """Result of a stream for one class.

    Attributes:
        name: Its name.
        photos: Photos that are answered with it after learning, and not called unknown.
        sure: Their mean score, 0 to 1.
        counts_as: Labelled photos that teach as much: each counts by how sure it is.
    """

    name: str
    photos: int
    sure: float
    counts_as: float


@dataclass(frozen=True)
class PhotoNote:
    """One photo of the stream: its key, the answer before and after, the score of the latter, 0 to 1, and why."""

    key: str
    before: str
    after: str
    sure: float
    why: str


@dataclass(frozen=True)
class LearningReport:
    """Report on a stream.

    Attributes:
        photos: Photos that were looked at.
        unknown: Those that are called unknown after learning.
        all_known: True if every photo was said to be of one of the classes.
        classes: What was learned of each class that has photos, most first.
        changed: Photos whose answer changes.
        examples: Some of these, the surest first.
        look_first: Photos that a person should look at first.
        shift: Share of the stream's shift that its groups have in common, as a camera's, 0 or less to 1.
        different: The stream is of another kind than the photos of the class model.
    """

    photos: int
    unknown: int
    all_known: bool
    classes: tuple[LearnedClass, ...]
    changed: int
    examples: tuple[PhotoNote, ...]
    look_first: tuple[PhotoNote, ...]
    shift: float
    different: bool


def learn_stream(
    bank: ClassBank,
    model: ClassModel,
    classes: Classes,
    spool: FeatureSpool,
    *,
    all_known: bool = False,
    progress: Callable[[int], object] = lambda rows: None,
) -> tuple[Learned, LearningReport]:
    """Learn from a stream; return the change for a bank, and the report.

    Args:
        bank: The bank, of C classes.
        model: The class model.
        classes: Its classes.
        spool: The stream.
        all_known: Every photo is of one of the classes.
        progress: Called with a number of embeddings whenever some have been processed.
    """
    names, rows, keys = bank.names, spool.rows, spool.keys()
    adapted = adapt(model, classes, rows, all_known=all_known, progress=progress)
    taught = np.flatnonzero(adapted.counts >= _LEAST).tolist()
    change = Learned(
        adapted.translation.astype(np.float32),
        {bank.keys[c]: (adapted.sums[c].astype(np.float32), float(adapted.counts[c])) for c in taught},
        len(spool),
        {"shift": adapted.shift, "unknown": adapted.unknown, "all_known": float(all_known)},
    )
    now = adapted.classes(classes)
    old = linear(model, classes.texts, classes.means, classes.counts, classes.named)
    new = linear(model, now.texts, now.means, now.counts, now.named, adapted.translation)
    limits = np.nan_to_num(model.unknown_threshold(now.counts), nan=0.5)
    unknown = changed = number = 0
    won, score_sums = np.zeros(len(names)), np.zeros(len(names))
    examples: list[tuple[float, int, PhotoNote]] = []
    first: list[tuple[float, int, PhotoNote]] = []
    for start in range(0, len(rows), _CHUNK):
        chunk = np.asarray(rows[start : start + _CHUNK])
        logits = scores_of(model, chunk, *new)
        strange = np.exp(log_probabilities(logits)[:, -1])
        shares = np.exp(log_probabilities(logits[:, :-1]))
        befores, afters = (chunk @ old[0][:-1].T + old[1][:-1]).argmax(1).tolist(), shares.argmax(1).tolist()
        for row, (before, after) in enumerate(zip(befores, afters, strict=True)):
            key, sure = next(keys), float(shares[row, after])
            called = not all_known and bool(strange[row] > limits[after])
            number, unknown, changed = number + 1, unknown + called, changed + (before != after)
            if not called:
                won[after] += 1
                score_sums[after] += sure
            why = "changes" if before != after else "like no class" if called else "not sure"
            note = PhotoNote(key, names[before], names[after], round(sure, 4), why)
            if before != after:
                _keep(examples, sure, number, note)
            _keep(first, (before != after) + called + 1 - sure, number, note)
    learned = [
        LearnedClass(
            names[c], int(won[c]), round(float(score_sums[c] / max(won[c], 1)), 4), round(float(adapted.counts[c]), 3)
        )
        for c in np.argsort(-won, kind="stable").tolist()
        if won[c] or adapted.counts[c] >= _LEAST
    ]
    return change, LearningReport(
        len(spool),
        unknown,
        all_known,
        tuple(learned),
        changed,
        tuple(note for *_, note in sorted(examples, reverse=True)),
        tuple(note for *_, note in sorted(first, reverse=True)),
        round(adapted.shift, 4),
        adapted.shift >= SAME_KIND,
    )


def _keep(heap: list[tuple[float, int, PhotoNote]], value: float, number: int, note: PhotoNote) -> None:
    """Keep the photos of the largest values; of equal ones the first."""
    heapq.heappush(heap, (value, -number, note))
    if len(heap) > _EXAMPLES:
        heapq.heappop(heap)


def report_lines(report: LearningReport, unreadable: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a report as lines of text, with the key and the reason of photos that could not be read."""
    yield f"{report.photos:,} photos, of which {report.unknown:,} are like none of the classes"
    for key, reason in unreadable[:_MOST_UNREADABLE]:
        yield f"not read: {key}: {reason}"
    if len(unreadable) > _MOST_UNREADABLE:
        yield f"not read: {len(unreadable) - _MOST_UNREADABLE:,} more"
    if report.different:
        yield (
            f"Warning: these photos differ from those of the class model as a whole ({report.shift:.0%} of their "
            "shift is common to all); look at the answers, or label some"
        )
    width = max((len(item.name) for item in report.classes[:_MOST_CLASSES]), default=0)
    for item in report.classes[:_MOST_CLASSES]:
        yield (
            f"  {item.name:<{width}}  {item.photos:>7,} photos, {item.sure:4.0%} sure, "
            f"teach as much as {item.counts_as:.1f} labelled ones"
        )
    if len(report.classes) > _MOST_CLASSES:
        yield f"  and {len(report.classes) - _MOST_CLASSES:,} more classes"
    if report.changed or any(item.counts_as for item in report.classes):
        yield f"{report.changed:,} answers change" + (", such as" if report.examples else "")
    else:
        more = "" if report.all_known else ", or add --all-known if every photo shows one of the bank's classes"
        yield f"these photos change nothing; label some{more}"
    yield from (f"  {note.key}: {note.before!r} -> {note.after!r} ({note.sure:.0%})" for note in report.examples)
    if report.look_first:
        yield "look first at"
        yield from (f"  {_noted(note)}" for note in report.look_first)


def _noted(note: PhotoNote) -> str:
    change = f"{note.before!r} -> {note.after!r}" if note.before != note.after else repr(note.after)
    return f"{note.key}: {change} ({note.sure:.0%}), {note.why}"
