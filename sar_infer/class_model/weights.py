"""The four weights: the largest posterior of all rankings of the folds, by Newton's method.

The likelihood is that of a multinomial logit, whose covariates are the four terms of a class's score: concave.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sar_infer.class_model.folds import Task
from sar_infer.class_model.model import USUAL, Doubles

_FREE, _HELD = 2.0, 0.5
"""Standard deviations of the prior, as shares of `USUAL`: of w0 and w2, which depend on the encoder, and of w3 and w1,
the latter around its usual share of w0."""


def powers(task: Task, at: Doubles) -> npt.NDArray[np.float32]:
    """Return the powers (N, C + 1) of the scores under the weights, the largest of each image being 1."""
    scores = (at[:3].astype(np.float32) @ task.terms.reshape(3, -1)).reshape(task.terms.shape[1:])
    scores[:, -1] += np.float32(at[3])
    scores -= scores.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float32] = np.exp(scores, out=scores)
    return result


def likeliest(tasks: Sequence[Task], photos: float, start: Doubles) -> tuple[Doubles, Doubles]:
    """Return the weights (4,) of the largest posterior, and minus its second derivative (4, 4), by Newton's method.

    Args:
        tasks: The rankings, whose weights are scaled to sum to ``photos``.
        photos: Independent images that they count as.
        start: (4,) first weights.
    """
    usual, shape = np.array(USUAL), np.eye(len(USUAL))
    shape[1, 0] = -USUAL[1] / USUAL[0]
    precision = shape.T @ np.diag((np.array([_FREE, _HELD, _FREE, _HELD]) * usual) ** -2.0) @ shape
    factor = photos / sum(float(task.images["weight"].sum()) for task in tasks)

    def derivatives(at: Doubles) -> tuple[float, Doubles, Doubles]:
        value, slope, curve = -float((at - usual) @ precision @ (at - usual)) / 2, precision @ (usual - at), precision
        curve = curve.copy()
        for task in tasks:
            shares, truth, weight = powers(task, at), task.images["truth"], factor * task.images["weight"]
            totals, rows = shares.sum(axis=1), np.arange(len(weight))
            value += float(weight @ np.log(np.maximum(shares[rows, truth] / totals, 1e-30)))
            shares *= (weight / totals).astype(np.float32)[:, None]
            weighted = task.terms * shares
            mean = np.vstack([weighted.sum(axis=2), shares[:, -1]]).astype(np.float64)
            slope -= mean.sum(axis=1)
            slope[3] += weight[truth == shares.shape[1] - 1].sum()
            curve[:3, :3] += weighted.reshape(3, -1) @ task.terms.reshape(3, -1).T
            curve[3, :3] += weighted[..., -1].sum(axis=1)
            curve[:3, 3] += weighted[..., -1].sum(axis=1)
            curve[3, 3] += shares[:, -1].sum()
            curve -= mean @ (mean / weight).T
        return value, slope, curve

    at, (best, slope, curve) = start, derivatives(start)
    for _ in range(50):
        step = np.linalg.solve(curve, slope)
        if slope @ step < 2e-7 * photos:
            break
        value, *rest = derivatives(at + step)
        while value < best - 1e-6 * photos:
            step /= 2
            value, *rest = derivatives(at + step)
        at, best, (slope, curve) = at + step, value, rest
    if at[0] < 0:  # photos do not predict their classes: only names count
        at = np.append(0.0, at[1:])
    return at, curve
