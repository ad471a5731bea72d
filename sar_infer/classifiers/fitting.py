"""Class statistics from photos: features and labels in, `Statistics` out; numpy alone, in seconds.

fitting = fit(features, labels, text_rows, scale)
fitting.statistics   # ranks as `sar_infer.classifiers.statistics` says
fitting.choice       # how its numbers were chosen, and what may be expected
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from sar_infer.classifiers import left_out
from sar_infer.classifiers.gaussian import Doubles, Gaussian, Labels, TrainedClasses, assemble, gaussian, separation
from sar_infer.classifiers.left_out import HANDCRAFTED, NO_RIVALS, LeftOutResult, Prompt, Rivals
from sar_infer.classifiers.left_out_confidence import fit_confidences
from sar_infer.classifiers.statistics import Statistics


@dataclass(frozen=True, eq=False)
class Fitting:
    """Fitted statistics, with the result of leaving classes out."""

    statistics: Statistics
    choice: LeftOutResult


def fit(
    features: Doubles, labels: Labels, rows: Doubles, scale: float, *, rivals: Rivals = NO_RIVALS, seed: int = 0
) -> Fitting:
    """Fit class statistics to the photos of C classes under a prompt that has seen none of them.

    Photos always count: alpha is above 0, since means of these classes move with every further photo.

    Args:
        features: (N, D) unit image features.
        labels: (N,) 0 to C - 1, for which `left_out.fittable` says None.
        rows: (C, D) unit text rows.
        scale: the logit scale.
        rivals: classes that rank beside them, such as those of a bundle.
        seed: of folds and draws.

    Returns:
        Statistics whose ``means`` are those of the C classes and of the trained rivals after them.
    """
    features = features.astype(np.float64)
    model = gaussian(features, labels, len(rows), trained=rivals.trained)
    short, short_rows, rivals = in_span(features, rows, rivals)
    prompt, views = Prompt(HANDCRAFTED, short_rows), short[:, np.newaxis]
    choice = left_out.choose(views, labels, [prompt], scale, rivals=rivals, alphas=left_out.ALPHAS[1:], seed=seed)
    statistics = chosen(choice, model, _with_trained(rows, rivals.trained), separation(short, labels, len(rows)))
    trust, text_trust = fit_confidences(views, labels, prompt, scale, choice, rivals=rivals, seed=seed)
    return Fitting(dataclasses.replace(statistics, confidence=trust, text_confidence=text_trust), choice)


def in_span(features: Doubles, rows: Doubles, rivals: Rivals) -> tuple[Doubles, Doubles, Rivals]:
    """Return features, text rows and rivals in K coordinates, fewer than D if photos are few, with all logits the same.

    Coordinates are along an orthonormal basis of all features and text rows. P is a multiple of the identity outside
    their span, where no image has a part. The part of a rival's name that lies there has a length, which is the last
    coordinate, and nothing else. With trained rivals, whose covariance goes beyond the span, all is returned as it is.

    Args:
        features: (N, D) of photos.
        rows: (C, D) text rows of their classes.
        rivals: of these classes.
    """
    photos = len(features)
    if rivals.trained is not None or photos + len(rows) + 1 >= features.shape[1]:
        return features, rows, rivals
    basis = np.linalg.qr(np.concatenate([features, rows]).T)[0]

    def along(points: Doubles) -> Doubles:
        coordinates = points @ basis
        rest = np.maximum((points**2).sum(axis=1) - (coordinates**2).sum(axis=1), 0.0)
        return np.concatenate([coordinates, np.sqrt(rest)[:, np.newaxis]], axis=1)

    inside = along(np.concatenate([features, rows]))
    inside[:, -1] = 0.0
    named = None if rivals.named is None else along(rivals.named)
    return inside[:photos], inside[photos:], Rivals(named)


def chosen(choice: LeftOutResult, model: Gaussian, rows: Doubles, distance: float) -> Statistics:
    """Return the statistics of a choice.

    Args:
        choice: of alpha and the offsets.
        model: of all photos.
        rows: (C, D) unit text rows of its classes.
        distance: `Statistics.separation`.
    """
    alone = choice.alpha == 0
    return assemble(
        left_out.text_alone(model) if alone else model,
        rows,
        alpha=left_out.PHOTO_ALPHA if alone else choice.alpha,
        b=0.0 if alone else None,
        offsets=choice.offsets,
        curve=choice.curve,
        separation=distance,
    )


def _with_trained(rows: Doubles, trained: TrainedClasses | None) -> Doubles:
    return rows if trained is None else np.concatenate([rows, trained.rows])
