"""The Gaussian model of image features from which class statistics are made: means, and one precision matrix.

It is training-free and in closed form (Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation",
ICLR 2024, arXiv 2402.04087). `sar_infer.classifiers.statistics` ranks with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer.classifiers.statistics import PRIOR, Statistics

TRACE = 100.0
"""tr(P S) of every precision matrix; the estimator alone has 219 for 6 x 8 photos and 100 for 100 x 16."""
_ALMOST_NOTHING = 1e-9
_MOST_PAIRS = 2000
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian model of some photos: means (C, D), counts (C,), centre (D,), scatter S and precision P (D, D).

    ``scatter`` is None if the photos show none: there is one a class, or all photos of a class are the same.
    """

    means: Doubles
    counts: Labels
    centre: Doubles
    scatter: Doubles | None
    precision: Doubles


def gaussian(features: Doubles, labels: Labels, classes: int, reference: Doubles | None = None) -> Gaussian:
    """Return class means and the shared precision matrix.

    P is ``D ((N - 1) S + tr(S) I)^-1`` of the pooled within-class covariance S (Wang et al., ICLR 2024, arXiv
    2402.04087, equation 8), scaled to ``tr(P S) = TRACE``.

    Args:
        features: (N, D) unit rows, at least one.
        labels: (N,) 0 to C - 1.
        classes: C.
        reference: (D, D) covariance to take where the photos show none; None is a multiple of the identity.
    """
    size = features.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, size))
    np.add.at(sums, labels, features)
    means = sums / np.maximum(counts, 1)[:, None]
    centre = means[counts > 0].mean(0)
    centred = features - means[labels]
    free = len(labels) - int((counts > 0).sum())
    scatter = centred.T @ centred / max(free, 1)
    if np.trace(scatter) > _ALMOST_NOTHING:
        return Gaussian(means, counts, centre, scatter, _precision(scatter, len(labels)))
    if reference is not None:
        return Gaussian(means, counts, centre, None, _precision(reference, len(labels)))
    around = float(((features - centre) ** 2).sum(1).mean()) / 2
    return Gaussian(means, counts, centre, None, np.eye(size) * (TRACE / (around if around > 0.01 else 0.5)))


def _precision(scatter: Doubles, photos: int) -> Doubles:
    inverse = np.linalg.inv((photos - 1) * scatter + float(np.trace(scatter)) * np.eye(len(scatter)))
    symmetric = inverse + inverse.T  # symmetric to the bit
    result: Doubles = symmetric * (TRACE / float((symmetric * scatter).sum()))
    return result


def slope(model: Gaussian, rows: Doubles) -> float:
    """Return b of ``m_c = centre + b (t_c - t̄)`` by least squares over the classes; 0 where their rows are the same."""
    with_photos = model.counts > 0
    named = rows[with_photos] - rows[with_photos].mean(0)
    power = float((named**2).sum())
    return float(((model.means[with_photos] - model.centre) * named).sum()) / power if power > _ALMOST_NOTHING else 0.0


def assemble(
    model: Gaussian,
    rows: Doubles,
    *,
    alpha: float,
    offsets: Sequence[tuple[int, float]] = ((0, 0.0),),
    b: float | None = None,
    curve: Sequence[tuple[float, float, float]] = (),
    separation: float = 1.0,
) -> Statistics:
    """Return statistics in the form that a bundle keeps; ``b`` None fits it to the (C, D) unit text rows."""
    return Statistics(
        precision=model.precision.astype(np.float32),
        centre=model.centre.astype(np.float32),
        text_centre=rows.mean(0).astype(np.float32),
        slope=slope(model, rows) if b is None else b,
        alpha=alpha,
        prior=PRIOR,
        offsets=tuple((int(n), float(g)) for n, g in offsets),
        curve=tuple(curve),
        means=model.means.astype(np.float32),
        counts=model.counts.astype(np.int64),
        separation=separation,
    )


def separation(features: Doubles, labels: Labels, classes: int) -> float:
    """Return the factor from the distance of two means under P to that of their classes in standard deviations.

    P is shrunk and scaled, so its distances are no standard deviations. Here half of the photos make means and P, and
    along the direction that separates two classes the other half says how many standard deviations they lie apart.
    The median over pairs of classes, 2,000 at most, is returned; 1 where there are not enough photos.

    Args:
        features: (N, D) unit rows.
        labels: (N,) 0 to C - 1.
        classes: C.
    """
    rng = np.random.default_rng(0)
    class_rows = [rng.permutation(np.flatnonzero(labels == c)) for c in range(classes)]
    class_rows = [rows for rows in class_rows if len(rows) >= 4]
    if len(class_rows) < 2:
        return 1.0
    first, second = ([rows[: len(rows) // 2] for rows in class_rows], [rows[len(rows) // 2 :] for rows in class_rows])
    labels_of_halves = [np.repeat(np.arange(len(class_rows)), [len(rows) for rows in half]) for half in (first, second)]
    learned, tested = (
        gaussian(features[np.concatenate(half)], half_labels, len(class_rows))
        for half, half_labels in zip((first, second), labels_of_halves, strict=True)
    )
    left, right = np.triu_indices(len(class_rows), 1)
    if len(left) > _MOST_PAIRS:
        pairs = rng.choice(len(left), _MOST_PAIRS, replace=False)
        left, right = left[pairs], right[pairs]
    differences = learned.means[left] - learned.means[right]
    directions = differences @ learned.precision
    distances = np.sqrt((directions * differences).sum(1))
    if tested.scatter is None or learned.scatter is None or not distances.all():
        return 1.0
    spread = np.sqrt(np.maximum(((directions @ tested.scatter) * directions).sum(1), _ALMOST_NOTHING))
    between = ((tested.means[left] - tested.means[right]) * directions).sum(1)
    factor = float(np.median(between / spread / distances))
    return factor if math.isfinite(factor) and factor > 0 else 1.0
