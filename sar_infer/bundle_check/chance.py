"""Bounds on how far chance alone moves figures that were measured on few photos, then and now."""

from __future__ import annotations

import bisect
import math

from sar_infer.classifiers.scores import BINS

Z = 3.2905267314919255
"""Two-sided 99.9 % of the normal distribution: a difference beyond it is chance once in two thousand cases."""


def wilson(right: float, count: int) -> tuple[float, float]:
    """Return the interval of a share in which ``right`` of ``count`` trials succeeded (Wilson, JASA 22:209, 1927).

    Args:
        right: how many succeeded.
        count: of how many, at least one.
    """
    share, square = right / count, Z * Z / count
    middle = share + square / 2
    half = math.sqrt(square * (share * (1 - share) + square / 4))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def least_loss(then: float, photos_then: int, now: float, photos_now: int) -> float:
    """Return the least loss of accuracy that two measurements allow, in points; below 0 if it may have grown.

    The lower end of the interval for the difference of two shares, method 10 of Newcombe (Statistics in Medicine
    17:873, 1998), which holds also for shares of 0 and 1 and for few photos.

    Args:
        then: accuracy in per cent when the bundle was made.
        photos_then: how many photos it is from.
        now: accuracy in per cent.
        photos_now: how many photos it is from.
    """
    before, after = then / 100, now / 100
    low, _ = wilson(before * photos_then, photos_then)
    _, high = wilson(after * photos_now, photos_now)
    return 100 * (before - after - math.hypot(before - low, high - after))


def lowest_credible(then: float, photos_then: int, photos_now: int, accepted: float) -> float:
    """Return the lowest accuracy in per cent at which a loss beyond the accepted points is not yet shown.

    Args:
        then: accuracy in per cent when the bundle was made.
        photos_then: how many photos it is from.
        photos_now: how many photos are evaluated now.
        accepted: points.
    """
    counts = range(photos_now + 1)
    right = bisect.bisect_left(
        counts, x=-accepted, key=lambda k: -least_loss(then, photos_then, 100 * k / photos_now, photos_now)
    )
    return 100 * min(right, photos_now) / photos_now


def chance_error(photos_then: int, photos_now: int) -> float:
    """Return by how much the calibration error may grow by chance, 0 to 1.

    Bins of few photos lie beside their score by chance: by ``sqrt(BINS / N) / 2`` on average at most. What comes on top
    is beyond ``sqrt(ln(1000) / 2N)`` once in a thousand cases, then and now (McDiarmid: a photo moves it by 1 / N).

    Args:
        photos_then: how many photos the error then was measured on.
        photos_now: how many photos are evaluated now.
    """
    beyond = math.sqrt(math.log(1000) / 2)
    return (math.sqrt(BINS) / 2 + beyond) / math.sqrt(photos_now) + beyond / math.sqrt(max(1, photos_then))
