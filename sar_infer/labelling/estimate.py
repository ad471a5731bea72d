"""Accuracy on new photos, from held-out photos that neither teach nor steer the questions, and when it is enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sar_infer.labelling.answers import Look

EVERY = 10
"""Answers between two looks."""
_TAIL = 0.05
_LEAST = 15
"""Held-out answers before an estimate that no longer changes counts."""
_AGREED, _FLAT = 0.98, 0.01


@dataclass(frozen=True)
class Estimate:
    """An estimate of accuracy.

    Attributes:
        accuracy: On new photos like those of the heap, 0 to 1; None without a held-out answer.
        low: Lower end of its 90 % interval.
        high: Upper end.
        held_out: Held-out photos that were answered with a class.
        answers: Questions that were answered.
        enough: Whether more answers are of little use.
        why: The reason, one sentence.
        here: Accuracy on the photos of the heap, of which answered ones are right; None without an estimate.
    """

    accuracy: float | None
    low: float
    high: float
    held_out: int
    answers: int
    enough: bool = False
    why: str = ""
    here: float | None = None


def interval(right: int, of: int) -> tuple[float, float]:
    """Return the exact 90 % interval (Clopper and Pearson, Biometrika 26:404, 1934) of ``right`` of ``of``."""

    def at_most(number: int, share: float) -> float:
        return sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(number + 1))

    def end(number: int, tail: float) -> float:  # the share of which `number` or fewer has the chance `tail`
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(number, middle) > tail else (low, middle)
        return (low + high) / 2

    return 0.0 if right == 0 else end(right - 1, 1 - _TAIL), 1.0 if right == of else end(right, _TAIL)


def verdict(looks: Sequence[Look], target: float, held_out: int) -> tuple[bool, str]:
    """Return whether the answers are enough, and why, from the looks so far, the oldest first.

    Args:
        looks: One for every ten answers.
        target: Accuracy, 0 to 1.
        held_out: Photos that are held out in all; 0 in a small heap.
    """
    if not held_out:
        return False, "a heap of fewer than 20 photos has no held-out part, so its accuracy is not estimated"
    if len(looks) < 2 or looks[-1].accuracy is None:
        return False, "too few answers so far for an estimate"
    if min(look.low for look in looks[-2:]) > target:
        return True, f"the low end of the interval was above {target:.0%} at two looks, ten answers apart"
    shares = [look.accuracy for look in looks[-3:] if look.accuracy is not None]
    agreed = [look.agreement is not None and look.agreement >= _AGREED for look in looks[-2:]]
    if looks[-3:][0].held_out >= _LEAST and len(shares) == 3 and max(shares) - min(shares) <= _FLAT and all(agreed):
        return True, "neither the estimate nor the predictions on the heap change any more"
    return False, f"the low end of the interval is not above {target:.0%} at two looks, so more answers can help"
