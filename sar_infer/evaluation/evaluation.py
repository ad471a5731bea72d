"""Results of answers for labelled photos: accuracy, classes, confused pairs, scores, unknown photos."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import Decision, can_call_unknown
from sar_infer.errors import InputError
from sar_infer.evaluation.curve import Curve
from sar_infer.evaluation.labels import LabelCheck
from sar_infer.evaluation.reading import Embedded, LeftOut, answered
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


@dataclass(frozen=True)
class Answer:
    """The answer for one photo, and its own class.

    Attributes:
        image: Name of the photo.
        label: Its class; the label, if that is no class to choose from.
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
    def confusion(self) -> Counter[tuple[str, str | None]]:
        """Return how many photos there are by class and answer; answers that are no class with photos are None."""
        names = {one.name for one in self.per_class}
        answerable = (one for one in self.answers if not one.absent)
        return Counter((one.label, one.answer if one.answer in names else None) for one in answerable)

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
    rows: Sequence[Floats] = (),
) -> Evaluation:
    """Evaluate answers.

    Args:
        answers: The answer for each photo.
        classes: Number of classes to choose from.
        tells_unknown: A photo can be called unknown.
        threshold: Probability of *unknown* above which it is; None if only its class decides.
        left_out: Photos that are not evaluated.
        rows: (D,) unit embedding of each photo, by which labels are checked; none for no check.

    Raises:
        InputError: No photo is of a class to choose from.
    """
    answerable, others = ([one for one in answers if one.absent is absent] for absent in (False, True))
    accuracy = Share.of_flags([one.right for one in answerable])
    among_best = Share.of_flags([one.rank is not None for one in answerable])
    if accuracy is None or among_best is None:
        raise InputError(_nothing_left(others, left_out))
    per_class, confused = _classes_and_pairs(answerable)
    check = None
    if len(rows):
        names, labels = np.unique([one.label for one in answerable], return_inverse=True)
        present = np.array([row for row, one in zip(rows, answers, strict=True) if not one.absent])
        check = LabelCheck(names.tolist(), present, labels, [one.image for one in answerable])
    return Evaluation(
        classes,
        accuracy,
        among_best,
        per_class,
        confused,
        _calibration(answerable),
        _unknowns(answerable, others, tells_unknown, threshold),
        tuple(answers),
        tuple(left_out),
        check,
    )


def _classes_and_pairs(answerable: Sequence[Answer]) -> tuple[tuple[ClassResult, ...], tuple[Pair, ...]]:
    photos, answered = (Counter(getattr(one, key) for one in answerable) for key in ("label", "answer"))
    images = defaultdict[tuple[str, str], list[str]](list)
    for one in sorted(answerable, key=lambda one: -one.score):
        images[one.label, one.answer].append(one.image)
    ordered = sorted(images.items(), key=lambda item: (-len(item[1]), item[0]))
    pairs = [
        Pair(label, answer, len(of), photos[label], tuple(of[:_EXAMPLES]))
        for (label, answer), of in ordered
        if label != answer
    ]
    taken_for = {pair.label: pair.answer for pair in reversed(pairs)}
    classes = [
        ClassResult(name, Share.of_count(len(images[name, name]), count), answered[name], taken_for.get(name))
        for name, count in photos.items()
    ]
    return tuple(sorted(classes, key=lambda one: (one.accuracy.share, -one.accuracy.of, one.name))), tuple(pairs)


def _calibration(answerable: Sequence[Answer]) -> Calibration:
    scores, right = np.array([(one.score, one.right) for one in answerable]).T
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
    called, others_called = (
        Share.of_flags([one.called_unknown for one in group]) if tells else None for group in (answerable, others)
    )
    of_answerable, of_others = (np.array([one.unknown for one in group]) for group in (answerable, others))
    limits = [(rate, threshold_for(of_answerable, rate)) for rate in FALSE_ALARMS]
    return Unknowns(
        called,
        others_called,
        len(others),
        tuple(dict.fromkeys(one.label for one in others)),
        auroc(-of_answerable, -of_others) if others else None,
        threshold,
        tuple(
            Trade(rate, at, Share.of_flags(of_answerable > at), Share.of_flags(of_others > at)) for rate, at in limits
        ),
    )


def _nothing_left(others: Sequence[Answer], left_out: Sequence[LeftOut]) -> str:
    """Return why there is nothing to evaluate, and what to do.

    Args:
        others: The answers for photos of other classes.
        left_out: Photos that are not evaluated.
    """
    if labels := [*dict.fromkeys(repr(one.label) for one in others)]:
        shown = ", ".join(labels[:3]) + ", …" * (len(labels) > 3)
        return f"none of the labels ({shown}) is a class to choose from; name folders like classes, or add these"
    if any(one.kind == "learned" for one in left_out):
        return "no photo is left: the classes have learned from all of them; give others"
    return f"no photo can be read: {left_out[0].image}: {left_out[0].reason}" if left_out else "no photo to evaluate"


def evaluate_photos(
    photos: Mapping[str, Iterable[ImageSource]],
    classes: ClassSet,
    bank: ClassBank,
    embed: Callable[[Iterable[ImageSource]], Embedded],
    decide: Decision,
    learned: Iterable[bytes],
    watch: Callable[[int], object],
) -> Evaluation:
    """Evaluate the answers for labelled photos; of several with the same pixels, the first.

    Args:
        photos: Photos by label.
        classes: The classes to choose from.
        bank: The bank, whose aliases count.
        embed: As `answered` takes it.
        decide: Makes results of rows, of the best `RANKED` classes.
        learned: As `answered` takes it.
        watch: As `answered` takes it.

    Raises:
        InputError: No photo is left that shows one of the classes.
    """
    columns = {label: class_of(label, classes, bank) for label in photos}
    pairs = [(columns[label] or label, photo) for label, of in photos.items() for photo in of]
    read, left_out = answered(pairs, embed, decide, learned, watch)
    left_out += [
        LeftOut(name, label, "repeated", f"the same pixels as {first}")
        for ((_, first), *others), *_ in read
        for label, name in others
    ]
    names, limits = {*columns.values()}, classes.unknown_thresholds
    return evaluate(
        [_answer(one.result, label, absent=label not in names) for one in read for label, _ in one.photos[:1]],
        len(classes.names),
        tells_unknown=can_call_unknown(classes),
        threshold=float(limits[0]) if (limits == limits[0]).all() else None,
        left_out=left_out,
        rows=[one.row for one in read],
    )


def _answer(result: ImageResult, label: str, *, absent: bool) -> Answer:
    best = result.predictions[0]
    scores = {one.label: (rank, one.score) for rank, one in enumerate(result.predictions, 1)}
    rank, score = scores.get(label, (None, None))
    unknown, called = result.unknown or 0.0, result.reason is not None
    return Answer(result.image, label, best.label, best.score, rank, score, unknown, called, absent)


def class_of(label: str, classes: ClassSet, bank: ClassBank) -> str | None:
    """Return the class that a label names, by name or alias; None if it is none to choose from, or background.

    Args:
        label: The label.
        classes: The classes to choose from.
        bank: The bank, whose aliases count.
    """
    column = classes.lookup.get(label)
    if column is None:
        column = classes.lookup.name(bank.lookup.spelling(label))
    if column is None or (classes.background is not None and classes.background[column]):
        return None
    return classes.names[column]
