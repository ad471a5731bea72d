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
        learned: Photos of each class from which the last point learned, on average.
        auroc: Probability that *unknown* is more probable for a photo of a held-out class than for one of another;
            None if no class could be held out.
        right: (K, N) shares of the draws, 0 to 1, in which a photo is classified correctly, by point; in
            cross-validation flags.
    """

    points: tuple[Point, ...]
    classes: int
    learned: float
    auroc: float | None
    right: Doubles = field(repr=False)

    @property
    def accuracy(self) -> Share:
        """Return the accuracy with all photos."""
        return self.points[-1].accuracy

    def to_json(self) -> dict[str, Any]:
        """Return all but the flags as JSON values."""
        content = dataclasses.asdict(dataclasses.replace(self, right=np.zeros(0)))
        del content["right"]
        return content


def photo_curve(
    rows: npt.NDArray[Any],
    labels: Labels,
    texts: npt.NDArray[Any] | None,
    scale: float,
    *,
    held_out: Flags | None = None,
    seed: int = 0,
) -> Curve:
    """Return the accuracy by number of photos of each class.

    Args:
        rows: (N, D) unit embeddings.
        labels: (N,) 0 to C - 1.
        texts: (C, D) unit text rows; None if the bundle has no text tower.
        scale: The logit scale.
        held_out: (N,) flags of photos to test, of which none is learned; None for cross-validation.
        seed: Of the folds.

    Raises:
        InputError: Fewer than two classes, or most have fewer than two photos to learn from.
    """
    given = np.arange(len(labels)) if held_out is None else np.flatnonzero(~held_out)
    usual = int(np.median(np.bincount(labels[given]))) if len(given) else 0
    classes = int(labels.max(initial=-1)) + 1
    if classes < 2 or usual < 2:
        raise InputError(f"expected two classes with two photos of most; got {classes}, and {usual} photos of most")
    named = np.full(classes, texts is not None)
    prior = np.full((classes, rows.shape[1]), rows.shape[1] ** -0.5) if texts is None else texts.astype(np.float64)
    fitted = fit(rows[given], labels[given], prior, scale, named=named, seed=seed)
    folds, rng = min(FOLDS, usual), np.random.default_rng(seed)
    if held_out is None:
        parts, learned_photos = [*splits(labels, folds, rng)], usual * (1 - 1 / folds)
    else:
        parts = [(rng.permutation(given), np.flatnonzero(held_out)) for _ in range(FOLDS)]
        learned_photos = float(usual)
    numbers = [2**power for power in range(20) if 2**power < learned_photos]
    right = np.zeros((len(numbers) + 1, len(rows)))
    inside, prior, _ = in_span(rows.astype(np.float64), prior, None)
    for learned, tested in parts:
        rank = _ranks(labels[learned])
        for point, most in enumerate((*numbers, len(rows))):
            scores = _scores(inside, labels, prior, named, learned[rank < most], tested, fitted.model)
            right[point, tested] += scores.argmax(axis=1) == labels[tested]
    if held_out is not None:
        right = right[:, held_out] / FOLDS
        rows, labels = rows[held_out], labels[held_out]
    if texts is not None:
        numbers, right = [0, *numbers], np.concatenate([[(rows @ texts.T).argmax(axis=1) == labels], right])
    shares = [Share.of_count(round(float(flags.sum())), len(labels)) for flags in right]
    points = [Point(n, share) for n, share in zip((*numbers, usual), shares, strict=True) if share]
    return Curve(tuple(points), classes, learned_photos, None if np.isnan(fitted.auroc) else fitted.auroc, right)


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
