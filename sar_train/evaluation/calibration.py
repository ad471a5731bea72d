"""How far scores can be trusted: what is fitted on held-out photos, and how well it holds.

Pure functions on logits (N, C), probabilities (N, C) and labels (N,), in float64. Temperature and calibration error are
those of Guo et al. (On Calibration of Modern Neural Networks, arXiv 1706.04599), the energy that of Liu et al. (arXiv
2010.03759), the sets split conformal prediction with the score ``1 - p`` (Sadinle et al., arXiv 1609.00451).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

BINS = 15
_COLDEST, _HOTTEST = 0.02, 50.0
_HALVINGS = 45


def fit_temperature(logits: Doubles, labels: Labels) -> float | None:
    """The T that makes the labels most likely under ``softmax(logits / T)``, between 0.02 and 50.

    The mean negative log-likelihood is convex in 1/T; the root of its derivative is found by bisection. None where
    there is none between these bounds: every photo is right, so that no score is sure enough, or the true classes are
    hardly above the average.

    Args:
        logits: (N, C).
        labels: (N,).
    """
    true = true_scores(logits, labels)

    def excess(beta: float) -> float:
        """Derivative by beta, 1/T."""
        return float(((softmax(beta * logits) * logits).sum(axis=1) - true).mean())

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    if not excess(low) < 0 < excess(high):
        return None
    for _ in range(_HALVINGS):
        beta = (low * high) ** 0.5
        low, high = (low, beta) if excess(beta) > 0 else (beta, high)
    return float((low * high) ** -0.5)


def softmax(logits: Doubles) -> Doubles:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Doubles = powers / powers.sum(axis=-1, keepdims=True)
    return result


def energy(logits: Doubles, temperature: float) -> Doubles:
    """(N,) ``-T logsumexp(logits / T)`` of (N, C)."""
    scaled = logits / temperature
    peak = scaled.max(axis=-1)
    result: Doubles = -temperature * (peak + np.log(np.exp(scaled - peak[..., np.newaxis]).sum(axis=-1)))
    return result


def true_scores(probabilities: Doubles, labels: Labels) -> Doubles:
    """(N,) the value (N, C) that each photo's own class has."""
    result: Doubles = probabilities[np.arange(len(labels)), labels]
    return result


def negative_log_likelihood(probabilities: Doubles, labels: Labels) -> float:
    """Mean in nats; a probability of 0 counts as the smallest number above it."""
    return float(-np.log(np.maximum(true_scores(probabilities, labels), np.finfo(np.float64).tiny)).mean())


def expected_calibration_error(probabilities: Doubles, labels: Labels, bins: int = BINS) -> float:
    """How far the best score is from the share of right answers, 0..1, over bins of equal width.

    ``sum_b |B_b| / N * |accuracy(B_b) - mean score(B_b)|``, bin b holding scores in ((b - 1) / bins, b / bins].

    Args:
        probabilities: (N, C).
        labels: (N,).
        bins: their number.
    """
    scores, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(scores * bins).astype(np.intp) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - scores, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def keeping(values: Doubles, share: float) -> float:
    """The largest threshold that at least this share of values (N,) is at or above."""
    allowed = int(np.floor((1 - share) * len(values) + 1e-9))
    return float(np.sort(values)[allowed])


def conformal_threshold(scores: Doubles, coverage: float) -> float:
    """The score that a class needs to be in the set, from those of held-out photos' own classes.

    The ``ceil((n + 1) coverage)``-th largest of n scores; 0, so that every class is in, where n is too small for that.
    The set of a further photo, drawn like these, then holds its class with probability ``coverage`` or more.

    Args:
        scores: (N,) probabilities of the true classes.
        coverage: 0..1.
    """
    place = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float(np.sort(scores)[len(scores) - place]) if place <= len(scores) else 0.0


def auroc(known: Doubles, unknown: Doubles) -> float:
    """The probability that a known photo has a larger value than an unknown one, equal values counted half.

    Args:
        known: (N,) values, N above 0.
        unknown: (M,) values, M above 0.
    """
    ordered = np.sort(unknown)
    below, up_to = (np.searchsorted(ordered, known, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(unknown)))
