"""How sure scores are, and how right: pure functions on logits (N, C), probabilities (N, C) and labels (N,).

Temperature and calibration error are those of Guo et al. (On Calibration of Modern Neural Networks, arXiv 1706.04599),
the energy that of Liu et al. (arXiv 2010.03759), the sets split conformal prediction with the score ``1 - p`` (Sadinle
et al., arXiv 1609.00451).
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer.measures import BINS, calibration_error

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Floating = TypeVar("Floating", bound=np.floating[Any])

COVERAGES = (0.8, 0.9, 0.95)
KEPT = 0.95
"""Share of images of known classes that the thresholds for unknown call known."""
_COLDEST, _HOTTEST = 0.02, 50.0
_HALVINGS = 45


def expected_calibration_error(
    probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64], bins: int = BINS
) -> float:
    """Return the distance of the best score from the share of right answers, 0 to 1, over bins of equal width.

    Args:
        probabilities: (N, C).
        labels: (N,).
        bins: their number.
    """
    return calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins)


def fit_temperature(logits: Doubles, labels: Labels) -> float | None:
    """Return the T between 0.02 and 50 that makes the labels most likely under ``softmax(logits / T)``.

    The mean negative log-likelihood is convex in 1/T; the root of its derivative is found by bisection. None where
    there is none between these bounds: all images are right, so that no T is small enough, or the true classes are
    hardly above the average.

    Args:
        logits: (N, C).
        labels: (N,).
    """
    true = true_scores(logits, labels)

    def excess(beta: float) -> float:
        """Return the derivative by beta, 1/T."""
        return float(((softmax(beta * logits) * logits).sum(axis=1) - true).mean())

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    if not excess(low) < 0 < excess(high):
        return None
    for _ in range(_HALVINGS):
        beta = (low * high) ** 0.5
        low, high = (low, beta) if excess(beta) > 0 else (beta, high)
    return float((low * high) ** -0.5)


def softmax(logits: npt.NDArray[Floating]) -> npt.NDArray[Floating]:
    """Return the softmax over the last axis; the row maximum is subtracted first, so that no logit overflows."""
    powers: npt.NDArray[Floating] = np.exp(logits - logits.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def energy(logits: Doubles, temperature: float) -> Doubles:
    """Return (N,) ``-T logsumexp(logits / T)`` of (N, C)."""
    scaled = logits / temperature
    peak = scaled.max(axis=-1)
    result: Doubles = -temperature * (peak + np.log(np.exp(scaled - peak[..., np.newaxis]).sum(axis=-1)))
    return result


def true_scores(probabilities: Doubles, labels: Labels) -> Doubles:
    """Return (N,) the value that each image's own class has in (N, C)."""
    result: Doubles = probabilities[np.arange(len(labels)), labels]
    return result


def negative_log_likelihood(probabilities: Doubles, labels: Labels) -> float:
    """Return the mean in nats; a probability of 0 counts as the smallest number above it."""
    return float(-np.log(np.maximum(true_scores(probabilities, labels), np.finfo(np.float64).tiny)).mean())


def keeping(values: Doubles, share: float) -> float:
    """Return the largest threshold that at least this share of the values (N,) reach."""
    allowed = int(np.floor((1 - share) * len(values) + 1e-9))
    return float(np.sort(values)[allowed])


def conformal_threshold(scores: Doubles, coverage: float, independent: float | None = None) -> float:
    """Return the score that a class needs to be in the set, from the scores of held-out images' own classes.

    The ``ceil((n + 1) coverage)``-th largest of n scores; 0, so that every class is in, where n is too small for that.
    The set of a further image, drawn like these, then holds its class with probability ``coverage`` or more.

    Args:
        scores: (N,) probabilities of the true classes.
        coverage: 0..1.
        independent: Number n of independent scores that these count as; None = N.
    """
    count = len(scores) if independent is None else independent
    share = np.ceil((count + 1) * coverage - 1e-9) / count
    return 0.0 if share > 1 else float(np.sort(scores)[int(np.floor((1 - share) * len(scores) + 1e-9))])


def auroc(known: Doubles, unknown: Doubles) -> float:
    """Return the probability that a known image has a larger value than an unknown one; equal values count half.

    Args:
        known: (N,) values, N above 0.
        unknown: (M,) values, M above 0.
    """
    ordered = np.sort(unknown)
    below, up_to = (np.searchsorted(ordered, known, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(unknown)))
