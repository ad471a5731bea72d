"""How far scores can be trusted, from classes left out in turn: no photo is held out, and none of an added class.

The folds are those that alpha and the offsets were chosen in, with two differences that make their rankings more like a
user's: all but an eighth of the kept classes' photos are learned from, and what few classes say is weighed against what
temperatures usually are. Chosen on classes of Caltech101 and garments that were trained on, see docs/confidence.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer.classifiers.confidence import Confidence
from sar_infer.classifiers.gaussian import assemble
from sar_infer.classifiers.left_out import (
    NO_RIVALS,
    PHOTO_ALPHA,
    PHOTOS,
    FoldPhotos,
    LeftOutResult,
    Prompt,
    Rivals,
    folds_of,
    text_alone,
)
from sar_infer.classifiers.scores import (
    COVERAGES,
    KEPT,
    Doubles,
    Labels,
    conformal_threshold,
    energy,
    softmax,
    true_scores,
)
from sar_infer.classifiers.statistics import Statistics, mahalanobis

_PARTS = 8
"""One part in so many of a kept class's photos is evaluated."""
_EVALUATED = 480
"""Approximate limit of the photos that a fold evaluates."""
_USUAL_SLOPE, _USUAL_SPREAD = 4.0, 0.5
"""Temperatures are usually about ``1 + 4 alpha``; spread of their logarithm around it."""
_CLASS_WEIGHT = 4.0
"""Independent photos that those of a class count as, since they are alike."""
_HOTTEST = 50.0
_HALVINGS = 16


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Images in one fold's ranking: logits (N, C), labels (N,), flags (N,) of left-out classes, weights (N,).

    With statistics also the distances (N,) to the class that comes first.
    """

    photos: int
    logits: Doubles
    labels: Labels
    left: npt.NDArray[np.bool_]
    weights: Doubles
    distances: Doubles | None


def fit_confidences(
    features: Doubles,
    labels: Labels,
    prompt: Prompt,
    scale: float,
    choice: LeftOutResult,
    *,
    reference: Doubles | None = None,
    rivals: Rivals = NO_RIVALS,
    seed: int = 0,
) -> tuple[Confidence | None, Confidence | None]:
    """Return how far scores of text and statistics, and of text alone, can be trusted; None if no photo was ranked.

    The temperature makes the labels most likely, trained and left-out classes counting half each, left-out classes by
    name and with photos too; the logarithm of T has a normal prior around ``log(1 + 4 alpha)``, against which each
    class counts as four photos. It is never below 1: left-out classes may be too easy.

    Args:
        features: (N, V, D) unit rows, as `left_out.choose` takes them.
        labels: (N,) 0 to C - 1.
        prompt: the one that the bundle has.
        scale: the logit scale.
        choice: of the statistics.
        reference: (D, D) covariance where photos show none.
        rivals: classes that compete too.
        seed: of folds and draws.
    """
    classes, rng = len(prompt.rows), np.random.default_rng(seed + 2)
    most = max(2, _EVALUATED // classes)
    drawn = [
        FoldPhotos.draw(fold, features, labels, rng, reference, rivals, parts=_PARTS, most=most)
        for fold in folds_of(classes, retrained=bool(prompt.in_fold), seed=seed)
    ]
    folds = [photos for photos in drawn if photos is not None]

    def confidence(way: LeftOutResult | None) -> Confidence | None:
        ranked = [images for photos in folds for images in _ranked(photos, prompt.of(photos.fold), scale, way)]
        if not ranked:
            return None
        temperature = _temperature(ranked, 1 + _USUAL_SLOPE * (way.alpha if way else 0.0), _CLASS_WEIGHT * classes)
        return _limits(ranked, temperature, _CLASS_WEIGHT * classes, way.offsets[-1][0] if way else 0)

    return confidence(choice), confidence(None)


def _ranked(photos: FoldPhotos, rows: Doubles, scale: float, choice: LeftOutResult | None) -> Iterator[_Ranked]:
    """Yield the images of a fold by number of photos of its left-out classes, which count half by name.

    Args:
        photos: of the fold.
        rows: (C, D) text rows of all classes.
        scale: the logit scale.
        choice: of the statistics; None stands for text alone.
    """
    statistics = _in_fold(photos, rows, choice)
    for count in PHOTOS if choice is not None else PHOTOS[:1]:
        result = photos.logits(statistics, rows, scale, count)
        if result is None:
            return
        logits, labels = result
        distances = None if choice is None or choice.alpha == 0 else _distances(photos, statistics, rows, count, logits)
        used = labels >= 0
        logits, labels, left = logits[used], labels[used], photos.order[used] >= 0
        if not left.any():
            return
        weights = np.where(left, 1 / left.sum(), 1 / (~left).sum())
        weights *= len(PHOTOS) - 1 if count == 0 else 1
        yield _Ranked(count, logits, labels, left, weights, None if distances is None else distances[used])


def _distances(photos: FoldPhotos, statistics: Statistics, rows: Doubles, count: int, logits: Doubles) -> Doubles:
    """Return the squared distance (N,) under P of each image to the mean of the class with the largest logit."""
    image_alone = dataclasses.replace(statistics, alpha=1.0, offsets=((0, 0.0),))
    result = photos.logits(image_alone, rows, 0.0, count)
    if result is None:
        raise ValueError(f"expected classes with more than {count} photos")
    best = result[0][np.arange(len(logits)), logits.argmax(axis=1)]  # <z, P d> - d' P d / 2
    squares: Doubles = mahalanobis(statistics, photos.images - statistics.centre) ** 2 - 2 * best
    return squares


def _in_fold(photos: FoldPhotos, rows: Doubles, choice: LeftOutResult | None) -> Statistics:
    """Return the statistics of a fold with the numbers that were chosen."""
    kept_rows = photos.kept_rows(rows)
    if choice is None:
        return assemble(photos.model, kept_rows, alpha=0.0, b=0.0)
    if choice.alpha == 0:
        return assemble(text_alone(photos.model), kept_rows, alpha=PHOTO_ALPHA, b=0.0, offsets=choice.offsets)
    return assemble(photos.model, kept_rows, alpha=choice.alpha, offsets=choice.offsets)


def _temperature(ranked: list[_Ranked], usual: float, strength: float) -> float:
    """Return the T between 1 and 50 that is most likely, by bisection over log T.

    Args:
        ranked: the images.
        usual: the middle of the prior.
        strength: what all images together count as.
    """
    total = sum(float(images.weights.sum()) for images in ranked)
    true = [true_scores(images.logits, images.labels) for images in ranked]

    def slope(log_beta: float) -> float:
        """Return the derivative of the negative log-likelihood and of the prior by log(1/T)."""
        beta = math.exp(log_beta)
        excess = sum(
            float((images.weights * ((softmax(beta * images.logits) * images.logits).sum(axis=1) - truth)).sum())
            for images, truth in zip(ranked, true, strict=True)
        )
        return strength * beta * excess / total + (log_beta + math.log(usual)) / _USUAL_SPREAD**2

    low, high = -math.log(_HOTTEST), 0.0
    if slope(high) < 0:
        return 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def _limits(ranked: list[_Ranked], temperature: float, independent: float, usual: int) -> Confidence:
    """Return the thresholds at a temperature.

    Args:
        ranked: the images.
        temperature: T.
        independent: number of independent photos that they count as.
        usual: number of photos of a trained class.
    """
    probabilities = [softmax(images.logits / temperature) for images in ranked]
    weights = np.concatenate([images.weights for images in ranked])
    best = np.concatenate([scores.max(axis=1) for scores in probabilities])
    energies = np.concatenate([energy(images.logits, temperature) for images in ranked])
    true = [true_scores(scores, images.labels) for scores, images in zip(probabilities, ranked, strict=True)]

    def least(values: list[Doubles]) -> tuple[float, ...]:
        return tuple(conformal_threshold(np.concatenate(values), coverage, independent) for coverage in COVERAGES)

    pairs = list(zip(true, ranked, strict=True))
    by_photos = {
        count: least([scores[images.left] for scores, images in pairs if images.photos == count])
        for count in sorted({images.photos for images in ranked})
        if count < usual or count == 0
    }
    if usual > 0:
        by_photos[usual] = least([scores[~images.left] for scores, images in pairs])
    return Confidence(
        temperature,
        others=float(np.average([images.logits.shape[1] - 1 for images in ranked])),
        score=_reached(best, weights),
        energy=-_reached(-energies, weights),
        distance=_farthest(ranked, weights),
        conformal=tuple(by_photos.items()),
    )


def _farthest(ranked: list[_Ranked], weights: Doubles) -> float:
    """Return the distance that the share ``KEPT`` of the weights does not exceed; infinite without distances."""
    distances = [images.distances for images in ranked if images.distances is not None]
    if len(distances) < len(ranked):
        return math.inf
    return max(0.0, -_reached(-np.concatenate(distances), weights))


def _reached(values: Doubles, weights: Doubles) -> float:
    """Return the largest threshold that the share ``KEPT`` of the weights (N,) of values (N,) reaches."""
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - weights[order]
    return float(values[order][np.flatnonzero(below <= (1 - KEPT) * weights.sum() + 1e-9)[-1]])
