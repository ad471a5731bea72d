"""Photos in the wrong folder: how probable each label is, by the class model fitted without the photo.

A photo's squared distance to its own class is taken under means and covariance that leave it out, in closed form: the
covariance loses one rank (Sherman and Morrison, 1950), the mean one photo. ``log(own / nearest other)`` is the evidence
against the label; a logistic function of it and of the class's number of photos is the probability (`_LOGIT`). Photos
then count by that probability, so that wrong ones pull neither means nor covariance, and everything is computed again,
twice. Leaving a photo out and removing doubtful ones is how confident learning finds label errors (Northcutt, Jiang and
Chuang, JAIR 2021, arXiv 1911.00068); here nothing is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Indices
from sar_infer.class_model.model import Doubles, Flags, Labels, Rivals, covariance

LEAST_PHOTOS = 4
"""Photos of a class below which none of them is in doubt."""
DOUBTFUL = 0.4
"""Probability of a label below which it is in doubt: that of 0.6 % of right photos and of 1 in 30 drawings, on the
choosing draws of ``benchmarks.label_issues``."""
_LOGIT = (-1.5, 14.2, -3.8)
"""Log-odds of a wrong label: constant, times the logarithm of the ratio of squared distances, times 1 / sqrt(photos of
the class). Logistic regression on the choosing draws, where 0 to 20 % of the labels are wrong."""
_PRIOR = 3.0
"""Photos at the centre that a class counts as, as for classes known only by photos; 0 flags 6 % fewer wrong photos."""
_ROUNDS, _LEAST_WEIGHT, _LEAST_SPREAD = 2, 0.02, 1e-3
_CELLS = 2**22


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Result of `label_issues` for N photos.

    Attributes:
        probability: (N,) that the label is right.
        suggested: (N,) the other class that fits best; the label itself where there is no other class.
        nearer: (N,) True if that class is nearer than the photo's own.
        doubtful: Rows of photos whose label is in doubt, the least probable first.
    """

    probability: Doubles
    suggested: Indices
    nearer: Flags
    doubtful: Indices


def label_issues(embeddings: npt.NDArray[np.floating], labels: Labels, *, others: Rivals | None = None) -> LabelIssues:
    """Return how probable each label is, and the class that fits better.

    Takes ``O(N D (D + C))``: 0.6 s on one core for 1,600 photos of 100 classes.

    Args:
        embeddings: (N, D) unit image embeddings.
        labels: (N,) 0 to C - 1.
        others: Further photos, which are right and not at hand: mean and number for each of K classes, the first C of
            which are those of the labels, and the class model that was fitted to them, whose covariance is pooled.
            Without one K is C.
    """
    rows, classes = embeddings.astype(np.float64), int(labels.max(initial=-1)) + 1
    photos = np.bincount(labels, minlength=classes if others is None else len(others.counts)).astype(np.float64)
    totals = photos if others is None else photos + others.counts
    probability, nearer = np.ones(len(rows)), np.zeros(len(rows), np.bool_)
    suggested = labels.astype(np.intp)
    if (totals > 0).sum() < 2 or not len(rows):
        return LabelIssues(probability, suggested, nearer, np.zeros(0, np.intp))
    for _ in range(1 + _ROUNDS):
        own, other, suggested = _distances(rows, labels, np.maximum(probability, _LEAST_WEIGHT), photos, others)
        evidence, nearer = np.log(np.maximum(own, 1e-12) / np.maximum(other, 1e-12)), other < own
        odds = _LOGIT[0] + _LOGIT[1] * evidence + _LOGIT[2] / np.sqrt(totals[labels])
        probability = 1 / (1 + np.exp(np.clip(odds, -500, 500)))
    order = np.argsort(probability, kind="stable")
    doubtful = order[(nearer & (probability < DOUBTFUL) & (totals[labels] >= LEAST_PHOTOS))[order]]
    return LabelIssues(probability, suggested, nearer, doubtful)


def _distances(
    rows: Doubles, labels: Labels, weights: Doubles, photos: Doubles, others: Rivals | None
) -> tuple[Doubles, Doubles, Indices]:
    """Return squared distances (N,) to the own class without the photo and to the nearest other one, and that class."""
    counts = np.bincount(labels, weights, len(photos)).astype(np.float64)
    sums = np.zeros((len(photos), rows.shape[1]))
    np.add.at(sums, labels, weights[:, None] * rows)
    total, classes = float(weights.sum()), int((photos > 0).sum())
    if others is not None:
        counts, sums = counts + others.counts, sums + others.counts[:, None] * others.means
    filled = counts > 0
    means = sums / np.where(filled, counts, 1)[:, None]
    residuals = rows - means[labels]
    scatter = (weights[:, None] * residuals).T @ residuals
    if others is not None:
        apart = np.where(others.counts[:, None] > 0, others.means - means, 0.0)
        scatter += (others.counts[:, None] * apart).T @ apart
        if others.model is not None and others.model.photos > 1:
            before = others.model.photos
            scatter += max(before - (others.counts > 0).sum(), 1.0) * covariance(others.model)
            total, classes = total + before, int(filled.sum())
    centre = means[filled].mean(0)
    # In the eigenvectors of the scatter W the precision without photo i is diagonal but for one rank:
    # P_i = scale_i (diag(a_i w + t_i) - a_i c_i r r')^-1, with r its residual and t_i the ridge, the trace of S.
    values, vectors = np.linalg.eigh(scatter)
    values, spread = np.maximum(values, 0.0), float(np.trace(scatter))
    shrunk = (counts[:, None] * (means - centre) / (counts + _PRIOR)[:, None]) @ vectors
    own, other, nearest = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows), np.intp)
    step = max(1, _CELLS // max(len(counts), rows.shape[1]))
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        weight, label = weights[some], labels[some]
        x, r = (rows[some] - centre) @ vectors, residuals[some] @ vectors
        rest = np.maximum(counts[label] - weight, 0.0)
        gone = np.divide(weight * counts[label], rest, out=np.zeros(len(x)), where=rest > 1e-9)
        free = np.maximum(total - weight - classes, 1.0)
        trace = spread - gone * (r**2).sum(1)
        a = np.maximum(total - weight - 1, 0.0) / free
        inverse = 1 / (a[:, None] * values + np.maximum(trace / free, _LEAST_SPREAD)[:, None])
        squares = (inverse * x**2).sum(1)[:, None] - 2 * (inverse * x) @ shrunk.T + inverse @ (shrunk**2).T
        to_own = x - (counts[label, None] * (x - r) - weight[:, None] * x) / (rest + _PRIOR)[:, None]
        at = np.arange(len(x))
        squares[at, label] = (inverse * to_own**2).sum(1)
        along = (inverse * r * x).sum(1)[:, None] - (inverse * r) @ shrunk.T
        along[at, label] = (inverse * r * to_own).sum(1)
        lost = a * gone
        squares += (lost / np.maximum(1 - lost * (inverse * r**2).sum(1), 1e-9))[:, None] * along**2
        squares /= 1 + 1 / (counts + _PRIOR)
        own[some] = squares[at, label] * (1 + 1 / (counts[label] + _PRIOR)) / (1 + 1 / (rest + _PRIOR))
        squares[at, label] = np.inf
        squares[:, ~filled] = np.inf
        nearest[some] = squares.argmin(1)
        other[some] = squares[at, nearest[some]]
    return own, other, nearest
