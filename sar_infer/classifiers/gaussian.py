"""The Gaussian model of image features from which class statistics are made: means, and one precision matrix.

Plain functions on arrays of features (N, D) and labels (N,). The model is training-free and in closed form (Wang et
al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024, arXiv 2402.04087).
`sar_infer.classifiers.statistics` ranks with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.classifiers.statistics import PRIOR, Statistics

TRACE = 100.0
"""tr(P S) of every precision matrix; the estimator alone has 219 for 6 x 8 photos and 100 for 100 x 16."""
_ALMOST_NOTHING = 1e-9
_MOST_PAIRS = 2000
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The Gaussian model of some photos: means (C, D), counts (C,), centre (D,), scatter S and precision P (D, D).

    ``scatter`` is None if the photos show none: there is one a class, or all photos of a class are the same.
    """

    means: Doubles
    counts: Labels
    centre: Doubles
    scatter: Doubles | None
    precision: Doubles


@dataclass(frozen=True, eq=False)
class TrainedClasses:
    """Classes whose photos were learned from before: of their photos, means and covariance are left.

    Attributes:
        rows: (R, D) unit text rows.
        means: (R, D) mean unit features.
        counts: (R,) numbers of photos.
        scatter: (D, D) covariance within classes; None if it is not known.
    """

    rows: Doubles
    means: Doubles
    counts: Labels
    scatter: Doubles | None

    @classmethod
    def of(cls, statistics: Statistics, rows: npt.NDArray[Any]) -> TrainedClasses:
        """Return the classes that statistics were fitted on, with those rows (R, D) that belong to them."""
        return cls(
            rows.astype(np.float64),
            statistics.means.astype(np.float64),
            statistics.counts,
            scatter_of(statistics.precision.astype(np.float64), int(statistics.counts.sum())),
        )


def gaussian(
    features: Doubles,
    labels: Labels,
    classes: int,
    reference: Doubles | None = None,
    trained: TrainedClasses | None = None,
) -> Gaussian:
    """Return class means and the shared precision matrix.

    P is ``D ((N - 1) S + tr(S) I)^-1`` of the pooled within-class covariance S (Wang et al., ICLR 2024, arXiv
    2402.04087, equation 8), scaled to ``tr(P S) = TRACE``.

    Args:
        features: (N, D) unit rows, at least one.
        labels: (N,) 0 to C - 1.
        classes: C.
        reference: (D, D) covariance to take where the photos show none; None is a multiple of the identity.
        trained: R classes that were learned from before. They follow the C in means and counts, and S is pooled over
            both by degrees of freedom.
    """
    size = features.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, size))
    np.add.at(sums, labels, features)
    means = sums / np.maximum(counts, 1)[:, None]
    centred, photos = features - means[labels], len(labels)
    free = photos - int((counts > 0).sum())
    scatter = centred.T @ centred / max(free, 1)
    if trained is not None:
        means, counts = np.concatenate([means, trained.means]), np.concatenate([counts, trained.counts])
        photos += int(trained.counts.sum())
        if trained.scatter is not None:
            before = int(trained.counts.sum()) - int((trained.counts > 0).sum())
            scatter = (free * scatter + before * trained.scatter) / max(free + before, 1)
    centre = means[counts > 0].mean(0)
    if np.trace(scatter) > _ALMOST_NOTHING:
        return Gaussian(means, counts, centre, scatter, _precision(scatter, photos))
    if reference is not None:
        return Gaussian(means, counts, centre, None, _precision(reference, photos))
    around = float(((features - centre) ** 2).sum(1).mean()) / 2
    return Gaussian(means, counts, centre, None, np.eye(size) * (TRACE / (around if around > 0.01 else 0.5)))


def scatter_of(precision: Doubles, photos: int) -> Doubles | None:
    """Return the covariance S (D, D) that `gaussian` has made a precision matrix P of; None if there is none.

    With A the inverse of P, ``(N - 1) S + tr(S) I = k A``. The trace of both sides gives ``tr(S) = k tr(A) / (N - 1 +
    D)``, and ``tr(P S) = TRACE`` gives k.

    Args:
        precision: (D, D).
        photos: N, from which it was made.
    """
    size = len(precision)
    inverse = np.linalg.inv(precision)
    if photos < 2:
        return None
    shape = (inverse - np.eye(size) * (np.trace(inverse) / (photos - 1 + size))) / (photos - 1)
    factor = float((precision * shape).sum())
    return shape * (TRACE / factor) if factor > _ALMOST_NOTHING else None


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
    """Return statistics in the form that bundles and banks keep.

    Args:
        model: means and precision matrix.
        rows: (C, D) unit text rows of its classes.
        alpha: weight of the image term.
        offsets: (n, g) in rising n.
        b: the slope; None fits it to the rows.
        curve: see `Statistics.curve`.
        separation: see `Statistics.separation`.
    """
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
