"""Results of answers for labelled photos: accuracy, classes, confused pairs, scores, unknown photos."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import Decision
from sar_infer.errors import ImageError
from sar_infer.evaluation.curve import Curve
from sar_infer.evaluation.labels import LabelCheck
from sar_infer.evaluation.reading import Embedded
from sar_infer.images.load import ImageSource
from sar_infer.measures import Share, auroc, calibration_error_by_chance, reliability, threshold_for
from sar_infer.results import ImageResult
from sar_infer.storage.strict_json import json_values

RANKED = 5
"""How many of the best classes are looked at for a photo's own."""
_EXAMPLES = 4
"""Photos that are named for each pair of classes."""
FALSE_ALARMS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of known photos that may be called unknown, for each of which a threshold is evaluated."""
_TOGETHER = 64


@dataclass(frozen=True)
class Answer:
    """The answer for one photo, and its own class.

    Attributes:
        image: Name of the photo.
        label: Its class, as it was labelled.
        answer: The best class.
        score: The score of that class, 0..1.
        rank: Rank of its own class, 1 to 5; None if it is none of the best five.
        label_score: Score of its own class; None if it is none of the best five.
        unknown: Probability that it shows none of the classes.
        called_unknown: True if it is called unknown.
        absent: True if its own class is none of those to choose from, so that every class is a wrong answer.
    """

    image: str
    label: str
    answer: str
    score: float
    rank: int | None
    label_score: float | None = None
    unknown: float = 0.0
    called_unknown: bool = False
    absent: bool = False

    @property
    def right(self) -> bool:
        """Return True if its own class is the best."""
        return self.rank == 1


@dataclass(frozen=True)
class LeftOut:
    """A photo that is not evaluated.

    Attributes:
        image: Name of the photo.
        label: Its class, as it was labelled.
        kind: ``learned``, if the bank has learned from it, ``repeated``, if another photo has the same pixels, or
            ``unreadable``.
        reason: The reason, in words.
    """

    image: str
    label: str
    kind: Literal["learned", "repeated", "unreadable"]
    reason: str


class Photo(NamedTuple):
    """A photo that was read: its label, its name, and its unit row (D,), or the rows of its crops (5, D)."""

    label: str
    name: str
    row: Floats


@dataclass(frozen=True)
class ClassResult:
    """The photos of one class.

    Attributes:
        name: The class.
        accuracy: Share of its photos that are given it.
        answered: How many photos are given it, of whatever class.
        taken_for: The class that its photos are given most often instead; None if all are right.
    """

    name: str
    accuracy: Share
    answered: int
    taken_for: str | None


@dataclass(frozen=True)
class Pair:
    """Photos of one class that are given another.

    Attributes:
        label: Their class.
        answer: The class that they are given.
        count: How many.
        of: Out of how many photos of their class.
        images: Some of them, the surest answers first.
    """

    label: str
    answer: str
    count: int
    of: int
    images: tuple[str, ...]


@dataclass(frozen=True)
class Bin:
    """Photos whose best score is above ``low`` and at most ``high``: their number, mean score and accuracy."""

    low: float
    high: float
    count: int
    score: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Mean scores compared with accuracy.

    Attributes:
        mean_score: Mean best score, 0..1.
        accuracy: Share of right answers.
        error: Expected calibration error in 15 bins (Guo et al., arXiv 1706.04599).
        by_chance: The error that perfectly calibrated scores like these have with as many photos.
        bins: Those with photos.
    """

    mean_score: float
    accuracy: float
    error: float
    by_chance: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Trade:
    """The effect of a threshold of *unknown*, of classes without thresholds of their own.

    Attributes:
        false_alarms: The largest share of photos of known classes that may exceed it.
        threshold: The threshold.
        known: Share of the photos of known classes that exceed it.
        unknown_images: Share of the photos of other classes that exceed it; None without any.
    """

    false_alarms: float
    threshold: float
    known: Share | None
    unknown_images: Share | None


@dataclass(frozen=True)
class Unknowns:
    """Photos that are said to show none of the classes, and photos that do.

    Attributes:
        known: Share of the photos of known classes that are called unknown; None without a threshold.
        unknown_images: Share of the photos of other classes that are called unknown; None without any, or a threshold.
        unknown_photos: How many photos are of other classes.
        unknown_classes: These classes.
        auroc: Probability that *unknown* is less probable for a photo of a known class than for one of another; None
            without any.
        threshold: Probability of *unknown* above which a photo is called unknown; None without one.
        trade: Thresholds for 1, 2, 5, 10 and 20 % false alarms.
    """

    known: Share | None
    unknown_images: Share | None
    unknown_photos: int
    unknown_classes: tuple[str, ...]
    auroc: float | None
    threshold: float | None = None
    trade: tuple[Trade, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Answers for labelled photos, with their labels.

    Attributes:
        classes: Number of classes to choose from.
        accuracy: Share of the photos of known classes that are given their own.
        among_best: Share of them whose own class is one of the best five.
        per_class: The classes that have photos, the worst first.
        confused: Pairs that are confused, the most frequent first.
        calibration: Mean scores compared with accuracy.
        unknowns: Photos that show none of the classes.
        answers: The answer for each photo.
        left_out: Photos that are not evaluated.
        label_check: Photos of known classes that may lie in the wrong folder; None if nobody looked.
        photo_curve: Accuracy by number of photos; None if nobody asked.
    """

    classes: int
    accuracy: Share
    among_best: Share
    per_class: tuple[ClassResult, ...]
    confused: tuple[Pair, ...]
    calibration: Calibration
    unknowns: Unknowns
    answers: tuple[Answer, ...] = field(default=(), repr=False)
    left_out: tuple[LeftOut, ...] = ()
    label_check: LabelCheck | None = field(default=None, repr=False, compare=False)
    photo_curve: Curve | None = None

    @property
    def confusion(self) -> tuple[list[str], Counter[tuple[int, int]]]:
        """Return the names of the classes with photos, sorted, and photos by their class and their answer's, by number.

        Other answers have the number after the last name.
        """
        names = sorted(result.name for result in self.per_class)
        numbers = {name: number for number, name in enumerate(names)}
        answers = (answer for answer in self.answers if not answer.absent)
        return names, Counter((numbers[one.label], numbers.get(one.answer, len(names))) for one in answers)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values, with ``label_issues`` instead of the check."""
        issues = [] if self.label_check is None else self.label_check.issues
        return {**json_values(self), "label_issues": json_values(issues)}


def evaluate(
    answers: Sequence[Answer],
    classes: int,
    *,
    tells_unknown: bool = False,
    threshold: float | None = None,
    left_out: Sequence[LeftOut] = (),
    rows: Floats | None = None,
) -> Evaluation | None:
    """Evaluate answers; None if no photo is of a class to choose from.

    Args:
        answers: The answer for each photo.
        classes: Number of classes to choose from.
        tells_unknown: A photo can be called unknown.
        threshold: Probability of *unknown* above which it is; None if only its class decides.
        left_out: Photos that are not evaluated.
        rows: (N, D) unit embeddings of the photos, by which their labels are checked; None for no check.
    """
    answerable = [answer for answer in answers if not answer.absent]
    accuracy = Share.of_flags([answer.right for answer in answerable])
    among_best = Share.of_flags([answer.rank is not None for answer in answerable])
    if accuracy is None or among_best is None:
        return None
    pairs = _pairs(answerable)
    return Evaluation(
        classes,
        accuracy,
        among_best,
        _per_class(answerable, pairs),
        pairs,
        _calibration(answerable),
        _unknowns(answerable, [answer for answer in answers if answer.absent], tells_unknown, threshold),
        tuple(answers),
        tuple(left_out),
        None if rows is None else _label_check(answers, rows),
    )


def _label_check(answers: Sequence[Answer], rows: Floats) -> LabelCheck:
    present = [not answer.absent for answer in answers]
    answerable = [*itertools.compress(answers, present)]
    names, labels = np.unique([answer.label for answer in answerable], return_inverse=True)
    return LabelCheck(names.tolist(), rows[np.array(present)], labels, [answer.image for answer in answerable])


def _per_class(answerable: Sequence[Answer], pairs: Sequence[Pair]) -> tuple[ClassResult, ...]:
    photos, answered = Counter(answer.label for answer in answerable), Counter(answer.answer for answer in answerable)
    right = Counter(answer.label for answer in answerable if answer.right)
    taken_for = {pair.label: pair.answer for pair in reversed(pairs)}
    results = [
        ClassResult(name, share, answered[name], taken_for.get(name))
        for name, count in photos.items()
        if (share := Share.of_count(right[name], count))
    ]
    return tuple(sorted(results, key=lambda result: (result.accuracy.share, -result.accuracy.of, result.name)))


def _pairs(answerable: Sequence[Answer]) -> tuple[Pair, ...]:
    counts = Counter(answer.label for answer in answerable)
    images: dict[tuple[str, str], list[str]] = defaultdict(list)
    for answer in sorted(answerable, key=lambda answer: -answer.score):
        if answer.label != answer.answer:
            images[answer.label, answer.answer].append(answer.image)
    ordered = sorted(images.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(Pair(*pair, len(of_pair), counts[pair[0]], tuple(of_pair[:_EXAMPLES])) for pair, of_pair in ordered)


def _calibration(answerable: Sequence[Answer]) -> Calibration:
    scores, right = np.array([(answer.score, answer.right) for answer in answerable]).T
    table = reliability(scores, right.astype(np.bool_))
    width = 1 / len(table.counts)
    columns = zip(table.counts.tolist(), table.scores.tolist(), table.right.tolist(), strict=True)
    bins = (
        Bin(number * width, (number + 1) * width, count, total / count, hits / count)
        for number, (count, total, hits) in enumerate(columns)
        if count
    )
    by_chance = calibration_error_by_chance(scores)
    return Calibration(float(scores.mean()), float(right.mean()), table.error, by_chance, tuple(bins))


def _unknowns(answerable: Sequence[Answer], others: Sequence[Answer], tells: bool, threshold: float | None) -> Unknowns:
    shares = [
        Share.of_flags([one.called_unknown for one in group]) if tells else None for group in (answerable, others)
    ]
    of_known, of_others = (np.array([one.unknown for one in group], np.float64) for group in (answerable, others))
    thresholds = [(rate, threshold_for(of_known, rate)) for rate in FALSE_ALARMS]
    return Unknowns(
        shares[0],
        shares[1],
        len(others),
        tuple(dict.fromkeys(one.label for one in others)),
        auroc(-of_known, -of_others) if others else None,
        threshold,
        tuple(
            Trade(rate, at, Share.of_flags(of_known > at), Share.of_flags(of_others > at)) for rate, at in thresholds
        ),
    )


def answers_to(
    photos: Mapping[str, Iterable[ImageSource]],
    embed: Callable[[Iterable[ImageSource]], Embedded],
    decide: Decision,
    columns: Mapping[str, str | None],
    learned: Iterable[bytes],
    watch: Callable[[int], object],
) -> tuple[list[Answer], list[LeftOut], list[Floats]]:
    """Return the answer for each photo, the photos that are left out, and the embedding (D,) of each answered photo.

    Args:
        photos: Photos by label.
        embed: Embeds photos one after another.
        decide: Makes results of rows, of five classes or more.
        columns: The class of each label; None for one that is no class.
        learned: Digests of photos that the classes have learned from.
        watch: Called with the number of photos done since the last call.
    """
    pairs = [(label, source) for label, sources in photos.items() for source in sources]
    read, left_out = unlearned(pairs, embed, learned, watch)
    left_out += [
        LeftOut(other.name, other.label, "repeated", f"the same pixels as {first.name}")
        for first, *others in read
        for other in others
    ]
    answers, every = list[Answer](), [first for first, *_ in read]
    for some in (every[start : start + _TOGETHER] for start in range(0, len(every), _TOGETHER)):
        results = decide(np.stack([photo.row for photo in some]), [photo.name for photo in some])
        answers += [_answer(result, one.label, columns[one.label]) for result, one in zip(results, some, strict=True)]
    return answers, left_out, [photo.row for photo in every]


def unlearned(
    pairs: Sequence[tuple[str, ImageSource]],
    embed: Callable[[Iterable[ImageSource]], Embedded],
    learned: Iterable[bytes],
    watch: Callable[[int], object],
) -> tuple[list[list[Photo]], list[LeftOut]]:
    """Return the photos that can be read and were not learned, those of the same pixels together, and the others.

    Args:
        pairs: The label of each photo, and the photo.
        embed: See `answers_to`.
        learned: See `answers_to`.
        watch: See `answers_to`.
    """
    by_pixels, left_out, digests = dict[bytes, list[Photo]](), list[LeftOut](), frozenset(learned)
    for (label, _), (name, digest, row) in zip(pairs, embed([source for _, source in pairs]), strict=True):
        if isinstance(row, ImageError):
            left_out.append(LeftOut(name, label, "unreadable", str(row)))
        elif digest in digests:
            left_out.append(LeftOut(name, label, "learned", "the classes have learned from it"))
        else:
            by_pixels.setdefault(digest, []).append(Photo(label, name, row))
        watch(1)
    return [*by_pixels.values()], left_out


def _answer(result: ImageResult, label: str, name: str | None) -> Answer:
    best = result.predictions[0]
    scores = {one.label: (rank, one.score) for rank, one in enumerate(result.predictions[:RANKED], 1)}
    rank, label_score = scores.get(name or "", (None, None))
    unknown, called = result.unknown or 0.0, result.reason is not None
    return Answer(
        result.image, name or label, best.label, best.score, rank, label_score, unknown, called, absent=name is None
    )


def class_of(label: str, classes: ClassSet, bank: ClassBank) -> str | None:
    """Return the class that a label names, by name or alias; None if it is none to choose from, or background.

    Args:
        label: The label.
        classes: The classes to choose from.
        bank: The bank, whose aliases count.
    """
    column = classes.lookup.get(label)
    if column is None and (position := bank.lookup.get(label)) is not None:
        column = classes.lookup.name(bank.names[position])
    if column is None or (classes.background is not None and classes.background[column]):
        return None
    return classes.names[column]


def nothing_left(labels: Sequence[str], answers: Sequence[Answer], left_out: Sequence[LeftOut]) -> str:
    """Return why there is nothing to evaluate, and what to do.

    Args:
        labels: The labels of all photos.
        answers: The answers for those that were evaluated, all of them unknown images.
        left_out: The others.
    """
    if answers:
        shown = ", ".join(map(repr, labels[:3])) + ", …" * (len(labels) > 3)
        return f"none of the labels ({shown}) is a class to choose from; name folders like classes, or add these"
    kinds = {item.kind for item in left_out}
    if "learned" in kinds:
        return "no photo is left: the classes have learned from all of them; give others"
    if left_out:
        return f"no photo can be read: {left_out[0].image}: {left_out[0].reason}"
    return "no photo to evaluate"
