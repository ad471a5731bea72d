"""Accuracy of the class model by number of photos of each class, cross-validated over photos.

Each photo is classified by a class model of the photos in the other folds: of all of them, or of 1, 2, 4 … of each
class. The four weights of the scores are fitted once, to all photos, since they are four numbers; means, covariance,
slope and priors never include the photo.

The accuracy with twice as many photos is an estimate: its log-odds are linear in the logarithm of the number of photos,
with a prior for the slope.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank
from sar_infer.class_model.cross_validation import Fitted, fit
from sar_infer.class_model.folds import columns_of, in_span, terms_of
from sar_infer.class_model.model import ClassModel, Doubles, Flags, Labels, gaussian
from sar_infer.errors import InputError
from sar_infer.evaluation.labels import LabelCheck
from sar_infer.measures import Share, wilson

FOLDS = 8
_SLOPE, _SLOPE_WEIGHT = 0.35, 50.0
"""Usual gain in log-odds by twice as many photos, and its weight beside ``N p (1 - p)`` of each point. These and
`_CERTAINTY` were chosen on the choosing deal of ``benchmarks.compare``."""
_CERTAINTY = 0.5
"""Share of the photos that an estimate counts as."""


@dataclass(frozen=True)
class Point:
    """Accuracy with some photos of each class.

    Attributes:
        photos: Photos of each class, at most; 0 is by name.
        accuracy: Share of all photos that are given their own class.
    """

    photos: int
    accuracy: Share


@dataclass(frozen=True)
class Curve:
    """Accuracy by number of photos of each class.

    Attributes:
        points: By rising number of photos; the last one has all that there are.
        classes: C.
        learned: Photos of each class from which the last point learned, on average.
        twice: Estimated accuracy with twice as many photos as the last point.
        auroc: Probability that *unknown* is more probable for a photo of a held-out class than for one of another;
            None if no class could be held out.
        right: (K, N) shares of the draws, 0 to 1, in which a photo is classified correctly, by point; in
            cross-validation flags.
    """

    points: tuple[Point, ...]
    classes: int
    learned: float
    twice: Point
    auroc: float | None
    right: Doubles = field(repr=False, compare=False)

    @property
    def accuracy(self) -> Share:
        """Return the accuracy with all photos."""
        return self.points[-1].accuracy


def photo_curve(
    rows: npt.NDArray[Any],
    labels: Labels,
    texts: npt.NDArray[Any],
    scale: float,
    *,
    named: Flags | None = None,
    held_out: Flags | None = None,
    fitted: Fitted | None = None,
    seed: int = 0,
) -> Curve:
    """Return the accuracy by number of photos of each class.

    Args:
        rows: (N, D) unit embeddings.
        labels: (N,) 0 to C - 1.
        texts: (C, D) unit text rows.
        scale: The logit scale.
        named: (C,) False for classes whose text row means nothing; None for none.
        held_out: (N,) flags of photos to test, of which none is learned; None for cross-validation.
        fitted: What `fit` makes of the photos that are learned; None fits.
        seed: Of the folds.

    Raises:
        InputError: Fewer than two classes, or most have fewer than two photos to learn from.
    """
    teaching = np.arange(len(labels)) if held_out is None else np.flatnonzero(~held_out)
    usual = int(np.median(np.bincount(labels[teaching]))) if len(teaching) else 0
    classes = int(labels.max(initial=-1)) + 1
    if classes < 2 or usual < 2:
        raise InputError(f"expected two classes with two photos of most; got {classes}, and {usual} photos of most")
    named = np.ones(classes, np.bool_) if named is None else named
    fitted = fitted or fit(rows[teaching], labels[teaching], texts, scale, named=named, seed=seed)
    folds, rng = min(FOLDS, usual), np.random.default_rng(seed)
    if held_out is None:
        parts, learned_photos = [*splits(labels, folds, rng)], usual * (1 - 1 / folds)
    else:
        parts = [(rng.permutation(teaching), np.flatnonzero(held_out)) for _ in range(FOLDS)]
        learned_photos = float(usual)
    numbers = [2**power for power in range(20) if 2**power < learned_photos]
    right = np.zeros((len(numbers) + 1, len(rows)))
    inside, prior, _ = in_span(rows.astype(np.float64), texts.astype(np.float64), None)
    for learned, tested in parts:
        rank = _ranks(labels[learned])
        for point, most in enumerate((*numbers, len(rows))):
            scores = _scores(inside, labels, prior, named, learned[rank < most], tested, fitted.model)
            right[point, tested] += scores.argmax(axis=1) == labels[tested]
    if held_out is not None:
        right = right[:, held_out] / FOLDS
        rows, labels = rows[held_out], labels[held_out]
    if named.all():
        numbers, right = [0, *numbers], np.concatenate([[(rows @ texts.T).argmax(axis=1) == labels], right])
    shares = [Share.of_count(round(float(flags.sum())), len(labels)) for flags in right]
    points = [Point(n, share) for n, share in zip((*numbers, usual), shares, strict=True)]
    auroc = None if np.isnan(fitted.auroc) else fitted.auroc
    return Curve(tuple(points), classes, learned_photos, doubled(points, learned_photos), auroc, right)


def doubled(points: Sequence[Point], learned: float) -> Point:
    """Return the accuracy to expect with twice as many photos as the last point.

    Args:
        points: By rising number of photos.
        learned: Photos of each class from which the last point learned.
    """
    by_photos = [point for point in points if point.photos]
    photos = np.log2([*(point.photos for point in by_photos[:-1]), learned])
    shares = np.array([(point.accuracy.count + 0.5) / (point.accuracy.of + 1) for point in by_photos])
    weights = by_photos[-1].accuracy.of * shares * (1 - shares)
    design = np.stack([np.ones(len(photos)), photos], axis=1)
    prior = np.diag([0.0, _SLOPE_WEIGHT])
    line = np.linalg.solve(
        (design.T * weights) @ design + prior,
        (design.T * weights) @ np.log(shares / (1 - shares)) + prior @ [0.0, _SLOPE],
    )
    last = by_photos[-1]
    share = float(1 / (1 + np.exp(-line @ [1.0, np.log2(2 * last.photos)])))
    count = _CERTAINTY * last.accuracy.of
    interval = wilson(share * count, count)
    return Point(2 * last.photos, Share(round(share * last.accuracy.of), last.accuracy.of, share, *interval))


def bank_curve(bank: ClassBank, check: LabelCheck, scale: float) -> Curve:
    """Return the accuracy on photos that a bank has not used, by number of its own photos.

    Args:
        bank: The bank; of its classes, those with photos whose embeddings are stored.
        check: The photos; those of other classes do not count.
        scale: The logit scale.

    Raises:
        InputError: Fewer than two classes have two photos, or none of the photos is of one of them.
    """
    sets = {name: one for name, one in bank.photos.items() if len(one.rows)}
    positions = {name: number for number, name in enumerate(sets)}
    labels = np.array([positions.get(check.names[label], -1) for label in check.labels.tolist()], np.intp)
    if not sets or not (labels >= 0).any():
        raise InputError("--curve needs photos of classes whose photos are in the bank; add some with sar-bank add")
    own = np.repeat(np.arange(len(sets)), [len(one.rows) for one in sets.values()])
    return photo_curve(
        np.concatenate([*(one.rows for one in sets.values()), check.rows[labels >= 0]]),
        np.concatenate([own, labels[labels >= 0]]),
        np.array([bank.entry(name).embedding for name in sets]),
        scale,
        named=np.array([not one.photos_only for one in sets.values()]),
        held_out=np.arange(len(own) + (labels >= 0).sum()) >= len(own),
    )


def curve_lines(curve: Curve) -> Iterator[str]:
    """Yield accuracy by photos of each class, and what twice as many would bring, for people."""
    yield "accuracy by photos of each class"
    for point in curve.points:
        yield f"  {photos_of(point.photos):<10} {point.accuracy.share:6.1%}  (95 % interval {point.accuracy.interval})"
    yield f"  {photos_of(curve.twice.photos):<10} {expectation(curve)}"


def expectation(curve: Curve) -> str:
    """Return the estimate for twice as many photos, for people."""
    return f"about {curve.twice.accuracy.share:.0%} (95 % interval {curve.twice.accuracy.interval}), estimated"


def photos_of(number: int) -> str:
    """Return a number of photos of each class, for people."""
    return "by name" if not number else "1 photo" if number == 1 else f"{number:,} photos"


def splits(labels: Labels, folds: int, rng: np.random.Generator) -> Iterator[tuple[Labels, Labels]]:
    """Yield photos to learn from, in random order, and photos to test; every class is spread over all folds."""
    order = rng.permutation(len(labels))
    fold = np.empty(len(labels), np.intp)
    fold[order] = (_ranks(labels[order]) + labels[order]) % folds
    for number in range(folds):
        yield order[fold[order] != number], np.flatnonzero(fold == number)


def _ranks(labels: Labels) -> Labels:
    """Return how many photos (N,) of the same class come before each."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels)
    ranks = np.empty(len(labels), np.intp)
    ranks[order] = np.arange(len(labels))
    return ranks - first


def _scores(
    rows: Doubles, labels: Labels, texts: Doubles, named: Flags, chosen: Labels, tested: Labels, model: ClassModel
) -> npt.NDArray[Any]:
    """Return the scores (T, C) of tested photos, by a class model of chosen ones with the weights of another."""
    size = len(model.centre)
    there, positions = np.unique(labels[chosen], return_inverse=True)
    closed = gaussian(rows[chosen], positions, texts[there], named[there], size=size)
    sums = np.zeros(texts.shape)
    np.add.at(sums, labels[chosen], rows[chosen] - closed.centre)
    columns = columns_of(closed, sums, np.bincount(labels[chosen], minlength=len(texts)), texts, named)
    return np.tensordot(model.weights[:3], terms_of(closed, rows[tested], columns, model.scale, size)[..., :-1], 1)
