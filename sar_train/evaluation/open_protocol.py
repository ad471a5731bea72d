"""The open protocol: joint accuracy over base and new classes, as of a deployed classifier.

The base-to-new protocol evaluates base images among base classes and new images among new classes. Here each image is
ranked among all of them. The setting is *open-world prompt tuning* (Zhou et al., DeCoOp, ICML 2024, arXiv 2406.00345)
or *generalised zero-shot learning* (Chao et al., ECCV 2016, arXiv 1605.04253). Pure functions in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sar_train.evaluation.accuracy import harmonic_mean

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

CURVE_POINTS = 101
"""Most points of a curve that are kept."""
_CHUNK = 4096
"""Images that are ranked at once, so that little is copied in float64."""


@dataclass(frozen=True)
class Curve:
    """Open base and open new accuracy in percent while an offset that base logits lose runs from -inf to +inf.

    At most `CURVE_POINTS` corners are kept, to be joined by straight lines.

    Attributes:
        base: from the accuracy among only base classes down to 0.
        new: from 0 up to the accuracy among only new classes.
    """

    base: list[float]
    new: list[float]


@dataclass(frozen=True)
class OpenMeasures:
    """Measures of joint accuracy, all under the same weighting of images; None where a side has no images.

    Attributes:
        base_accuracy: percent of base images that are given their class among all classes.
        new_accuracy: the same of new images.
        harmonic_mean: of these two.
        accuracy: the same of all images, DeCoOp's Acc.
        auroc: 0 to 1, the probability that a base image scores above a new one, ties one half. The score is the largest
            softmax probability of a base class, with the softmax over all classes (DeCoOp).
        openworld_auc: 0 to 1, the probability that a base image is right among the base classes, a new one right among
            the new classes, and the base image scores higher, ties one half (Hua et al., ICML 2025, arXiv 2505.05180).
        ausuc: 0 to 1, the area under the curve (Chao et al.).
        curve: the curve.
    """

    base_accuracy: float | None
    new_accuracy: float | None
    harmonic_mean: float | None
    accuracy: float | None
    auroc: float | None
    openworld_auc: float | None
    ausuc: float | None
    curve: Curve | None


@dataclass(frozen=True)
class OpenProtocol:
    """The measures over images, as the field reports them, and with every class of a side counting the same."""

    images: OpenMeasures
    per_class: OpenMeasures


def open_protocol(logits: npt.ArrayLike, labels: npt.ArrayLike, n_base: int) -> OpenProtocol:
    """Measure joint accuracy over base and new classes.

    Args:
        logits: (N, C), the base classes first.
        labels: (N,) 0 to C - 1; an image is a base image if its label is below ``n_base``.
        n_base: how many of the C classes are base classes.

    Raises:
        ValueError: a logit is not a number.
    """
    scores, truth = np.asarray(logits), np.asarray(labels, dtype=np.int64)
    if np.isnan(scores).any():
        raise ValueError("logits: expected numbers, got NaN")
    chunks = [slice(start, start + _CHUNK) for start in range(0, max(1, len(truth)), _CHUNK)]
    ranks = [_rank(scores[chunk], truth[chunk], n_base) for chunk in chunks]
    ranked = _Ranked(*map(np.concatenate, zip(*ranks, strict=True)))
    counts = np.bincount(truth, minlength=scores.shape[1])
    return OpenProtocol(_measure(ranked, np.ones(len(truth))), _measure(ranked, 1 / counts[truth]))


class _Ranked(NamedTuple):
    """The arrays that all measures are made from, (N,) each.

    Attributes:
        base: whether the image is a base image.
        right: whether it is given its class among the classes of its own side.
        score: logarithm of the largest softmax probability of a base class, which separates probabilities that round
            to 1.
        margin: largest base logit minus largest new logit.
    """

    base: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    score: Doubles
    margin: Doubles


def _rank(logits: npt.NDArray[Any], labels: Labels, n_base: int) -> _Ranked:
    """Rank images; the largest logit of a side without classes is -inf."""
    logits, rows, base = logits.astype(np.float64), np.arange(len(labels)), labels < n_base
    best, first = np.full((2, len(labels)), -np.inf), np.zeros((2, len(labels)), dtype=np.int64)
    for side, (start, stop) in enumerate(((0, n_base), (n_base, logits.shape[1]))):
        if start < stop:
            first[side] = start + logits[:, start:stop].argmax(axis=1)
            best[side] = logits[rows, first[side]]
    right = labels == np.where(base, first[0], first[1])
    margin = best[0] - best[1]
    if n_base:
        logits -= best[0][:, np.newaxis]
    logits.sort(axis=1)  # images with the same logits in another order tie, and the sum ends in log1p of the others
    return _Ranked(base, right, -np.logaddexp.reduce(logits, axis=1), margin)


def _measure(ranked: _Ranked, weights: Doubles) -> OpenMeasures:
    """Return the measures with ``weights`` (N,) of images, normalised over the images that a measure counts."""
    base, right = ranked.base, ranked.right
    as_base = ranked.margin >= 0  # on ties the arg max takes the first class, which is a base class
    open_right = right & (as_base == base)
    shares = [_share(open_right[images], weights[images]) for images in (base, ~base, np.ones_like(base))]
    percent = [None if share is None else 100 * share for share in shares]
    auroc = openworld = ausuc = curve = None
    if base.any() and not base.all():
        share = np.where(base, weights / weights[base].sum(), weights / weights[~base].sum())
        base_right, new_right = base & right, ~base & right
        auroc = _above(ranked.score, share, base, ~base)
        openworld = _above(ranked.score, share, base_right, new_right)
        ausuc = _above(ranked.margin, share, base_right, new_right)
        curve = _thin(100 * _corners(ranked.margin, share, base_right, new_right))
    both = harmonic_mean(percent[0], percent[1])
    return OpenMeasures(percent[0], percent[1], both, percent[2], auroc, openworld, ausuc, curve)


def _share(right: npt.NDArray[np.bool_], weights: Doubles) -> float | None:
    return float(weights[right].sum() / weights.sum()) if len(weights) else None


def _above(values: Doubles, weights: Doubles, high: npt.NDArray[np.bool_], low: npt.NDArray[np.bool_]) -> float:
    """Return the summed weight products of pairs in which the ``high`` value is above the ``low`` one, ties half.

    For margins of right images this is the area under `_corners`: a base image with margin d stays right while the
    offset is at most d, and by then the new images with smaller margins have become right.
    """
    order = np.argsort(values[low])
    low_values, sums = values[low][order], np.concatenate([[0.0], weights[low][order].cumsum()])
    below, not_above = (sums[np.searchsorted(low_values, values[high], side)] for side in ("left", "right"))
    return float(weights[high] @ (below + not_above) / 2)


def _corners(
    margins: Doubles, weights: Doubles, base_right: npt.NDArray[np.bool_], new_right: npt.NDArray[np.bool_]
) -> Doubles:
    """Return (K, 2) shares of base and new that are right, from all-base to all-new, in order of the offset."""
    values, inverse = np.unique(margins[base_right | new_right], return_inverse=True)
    steps = np.zeros((len(values) + 1, 2))
    for column, group in enumerate((base_right, new_right)):
        steps[1:, column] = np.bincount(inverse, (weights * group)[base_right | new_right], minlength=len(values))
    passed = steps.cumsum(axis=0)
    return np.stack([passed[-1, 0] - passed[:, 0], passed[:, 1]], axis=1)


def _thin(corners: Doubles) -> Curve:
    """Keep the ends and corners that are about evenly spaced along the curve, rounded to 0.01."""
    if len(corners) > CURVE_POINTS:
        along = np.concatenate([[0.0], np.abs(np.diff(corners, axis=0)).sum(axis=1).cumsum()])
        corners = corners[np.unique(np.searchsorted(along, np.linspace(0, along[-1] * (1 - 1e-12), CURVE_POINTS)))]
    base, new = ([round(float(value), 2) for value in column] for column in corners.T)
    return Curve(base, new)
