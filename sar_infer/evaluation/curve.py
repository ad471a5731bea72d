"""Accuracy of the class model by number of photos of each class, cross-validated over photos.

Each photo is classified by a class model of the photos in the other folds: of all of them, or of 1, 2, 4 … of each
class. The four weights of the scores are fitted once, to all photos, since they are four numbers; means, covariance,
slope and priors never include the photo.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.class_model.cross_validation import fit
from sar_infer.class_model.folds import columns_of, in_span, terms_of
from sar_infer.class_model.model import ClassModel, Doubles, Flags, Labels, gaussian
from sar_infer.errors import InputError
from sar_infer.measures import Share

FOLDS = 8


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
        auroc: Probability that *unknown* is more probable for a photo of a held-out class than for one of another;
            None if no class could be held out.
        right: (K, N) flags of the photos that are classified correctly, by point.
    """

    points: tuple[Point, ...]
    classes: int
    auroc: float | None
    right: Flags = field(repr=False)

    @property
    def accuracy(self) -> Share:
        """Return the accuracy with all photos."""
        return self.points[-1].accuracy

    def to_json(self) -> dict[str, Any]:
        """Return all but the flags as JSON values."""
        content = dataclasses.asdict(dataclasses.replace(self, right=np.zeros(0, np.bool_)))
        del content["right"]
        return content


def photo_curve(
    rows: npt.NDArray[Any],
    labels: Labels,
    texts: npt.NDArray[Any] | None,
    scale: float,
    *,
    seed: int = 0,
) -> Curve:
    """Return the accuracy by number of photos of each class.

    Args:
        rows: (N, D) unit embeddings.
        labels: (N,) 0 to C - 1, each class at least once.
        texts: (C, D) unit text rows; None if the bundle has no text tower.
        scale: The logit scale.
        seed: Of the folds.

    Raises:
        InputError: Fewer than two classes, or most have fewer than two photos.
    """
    counts = np.bincount(labels)
    usual = int(np.median(counts))
    if len(counts) < 2 or usual < 2:
        raise InputError(
            f"cross-validation needs two classes, and two photos of most; got {len(counts)} classes and {usual} photos "
            "of the median class"
        )
    folds = min(FOLDS, usual)
    named = np.full(len(counts), texts is not None)
    prior = np.full((len(counts), rows.shape[1]), rows.shape[1] ** -0.5) if texts is None else texts.astype(np.float64)
    fitted = fit(rows, labels, prior, scale, named=named, seed=seed)
    numbers = [2**power for power in range(20) if 2**power < usual * (1 - 1 / folds)]
    right = np.zeros((len(numbers) + 1, len(rows)), np.bool_)
    inside, prior, _ = in_span(rows.astype(np.float64), prior, None)
    for learned, tested in splits(labels, folds, np.random.default_rng(seed)):
        rank = _ranks(labels[learned])
        for point, most in enumerate((*numbers, len(rows))):
            scores = _scores(inside, labels, prior, named, learned[rank < most], tested, fitted.model)
            right[point, tested] = scores.argmax(axis=1) == labels[tested]
    if texts is not None:
        by_name = (rows @ texts.T).argmax(axis=1) == labels
        numbers, right = [0, *numbers], np.concatenate([by_name[None], right])
    points = [
        Point(n, share) for n, flags in zip((*numbers, usual), right, strict=True) if (share := Share.of_flags(flags))
    ]
    return Curve(tuple(points), len(counts), None if np.isnan(fitted.auroc) else fitted.auroc, right)


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
