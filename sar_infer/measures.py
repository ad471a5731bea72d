"""Measures that compare answers with the truth: pure functions on arrays, each with its source."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""
BINS = 15
"""Of the calibration error."""
COVERAGES = (0.8, 0.9, 0.95)
"""Of prediction sets."""
USUAL_ALARMS = 0.05
"""Share of the images of known classes that may be called unknown."""
_DRAWS = 200
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def wilson(right: float, count: float, z: float = Z95) -> tuple[float, float]:
    """Return the interval of a share in which ``right`` of ``count`` trials succeeded (Wilson, JASA 22:209, 1927).

    Args:
        right: How many succeeded.
        count: Of how many, at least one.
        z: Quantile of the normal distribution: that of 95 % by default.
    """
    share, square = right / count, z * z / count
    middle = share + square / 2
    half = math.sqrt(square * (share * (1 - share) + square / 4))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


@dataclass(frozen=True)
class Share:
    """A share of photos.

    Attributes:
        count: How many have the property.
        of: Out of how many.
        share: ``count / of``, 0..1.
        low: Lower end of the 95 % interval (Wilson, JASA 22:209, 1927).
        high: Its upper end.
    """

    count: int
    of: int
    share: float
    low: float
    high: float

    @classmethod
    def of_flags(cls, flags: Sequence[bool | None] | npt.NDArray[np.bool_]) -> Share | None:
        """Return the share of those that are True; None of none."""
        return cls.of_count(sum(map(bool, flags)), len(flags)) if len(flags) else None

    @classmethod
    def of_count(cls, count: int, of: int) -> Share:
        """Return the share of ``count`` out of ``of``, at least one."""
        return cls(count, of, count / of, *wilson(count, of))

    @property
    def interval(self) -> str:
        """Return the interval in per cent."""
        return f"{100 * self.low:.1f} to {100 * self.high:.1f}"

    def __format__(self, spec: str) -> str:
        return format(self.share, spec) if spec else str(self)

    def __str__(self) -> str:
        return f"{self.share:.1%} (95 % interval {self.interval}; {self.count:,} of {self.of:,})"


def threshold_for(values: npt.NDArray[np.floating], rate: float) -> float:
    """Return a threshold that at most a share of values exceed: their quantile, the higher one of two neighbours.

    Args:
        values: (N,) probabilities of *unknown* of known images, N above 0.
        rate: The share of false alarms, 0 to 1.
    """
    return float(np.quantile(values, 1 - rate, method="higher"))


def upper_limit(values: Doubles, spread: float = 1.0, photos: float = 4.0) -> float:
    """Return a limit that a further value of a normal distribution exceeds with probability `USUAL_ALARMS`, from few.

    Args:
        values: (N,) values, N of 1 or more.
        spread: Standard deviation that is expected.
        photos: Values that this prior counts as.
    """
    free = photos + len(values) - 1
    deviation = np.sqrt((photos * spread**2 + ((values - values.mean()) ** 2).sum()) / free)
    student = 1.645 + 1.524 / free + 1.42 / free**2  # upper 5 % point of Student's t (Cornish and Fisher)
    return float(values.mean() + student * deviation * np.sqrt(1 + 1 / len(values)))


def conformal(scores: Doubles, coverage: float, independent: float | None = None) -> float:
    """Return the quantile of split conformal prediction (Sadinle et al., arXiv 1609.00451).

    Args:
        scores: (N,) score of each image's own class, 0 to 1.
        coverage: Share of prediction sets that are to contain it, 0 to 1.
        independent: Independent images that they count as; None is N.
    """
    count = len(scores) if independent is None else independent
    share = np.ceil((count + 1) * coverage - 1e-9) / count
    return 0.0 if share > 1 else float(np.sort(scores)[int(np.floor((1 - share) * len(scores) + 1e-9))])


@dataclass(frozen=True, eq=False)
class Reliability:
    """Mean score and accuracy in bins of equal width; bin b holds scores in ((b - 1) / bins, b / bins].

    Attributes:
        counts: (B,) number of photos.
        scores: (B,) sums of their scores.
        right: (B,) how many were classified correctly.
    """

    counts: Labels
    scores: Doubles
    right: Labels

    @property
    def error(self) -> float:
        """Return the calibration error, ``sum_b |right_b - scores_b| / N``, 0 to 1."""
        return float(np.abs(self.right - self.scores).sum() / self.counts.sum())


def reliability(scores: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Sort photos by their best score (Guo et al., arXiv 1706.04599, equations 1 and 2).

    Args:
        scores: (N,) best score of each photo, 0 to 1.
        right: (N,) flags of photos whose best class is theirs.
        bins: Number of bins.
    """
    numbers = np.clip(np.ceil(scores * bins).astype(np.intp) - 1, 0, bins - 1)
    return Reliability(
        np.bincount(numbers, minlength=bins).astype(np.int64),
        np.bincount(numbers, weights=scores, minlength=bins).astype(np.float64),
        np.bincount(numbers, weights=right, minlength=bins).astype(np.int64),
    )


def calibration_error(scores: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], bins: int = BINS) -> float:
    """Return the expected calibration error, 0 to 1 (Guo et al., arXiv 1706.04599, equation 3).

    Args:
        scores: (N,) best score of each photo, 0 to 1.
        right: (N,) flags of photos whose best class is theirs.
        bins: Number of bins.
    """
    return reliability(scores, right, bins).error


def calibration_error_by_chance(scores: npt.NDArray[np.floating], bins: int = BINS) -> float:
    """Return the mean calibration error of scores that are perfectly calibrated, 0 to 1.

    The accuracy of a bin of few photos differs from its mean score by chance, so a perfect classifier has an error
    above 0. In 200 draws, always the same, each photo is correct with the probability that its score states.

    Args:
        scores: (N,) best score of each photo, 0 to 1.
        bins: Number of bins.
    """
    generator = np.random.default_rng(0)
    return float(
        np.mean([calibration_error(scores, generator.random(len(scores)) < scores, bins) for _ in range(_DRAWS)])
    )


def auroc(known: npt.NDArray[np.floating], unknown: npt.NDArray[np.floating]) -> float:
    """Return the probability that a known image has a larger value than an unknown one; equal values count half.

    Args:
        known: (N,) values, N above 0.
        unknown: (M,) values, M above 0.
    """
    ordered = np.sort(unknown)
    below, up_to = (np.searchsorted(ordered, known, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(unknown)))


def average_precision(scores: npt.NDArray[np.floating], shows: npt.NDArray[np.bool_]) -> float:
    """Return the area under precision over recall, 0..1, in steps at each score.

    Args:
        scores: (N,) values, larger for images that are expected to show a class.
        shows: (N,) flags of those that do, one or more.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]), 1))  # equal scores are one step
    right = np.cumsum(shows[order])[last]
    return float((np.diff(right, prepend=0) * right / (last + 1)).sum() / right[-1])


def confused_pairs(labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer]) -> list[tuple[int, int, int]]:
    """Return (class, answer, count) of each kind of mistake, the most frequent first, equal ones by class and answer.

    Args:
        labels: (N,) class of each photo.
        predicted: (N,) class that it was given.
    """
    wrong = labels != predicted
    counts = Counter(zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    return [(*pair, count) for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


@dataclass(frozen=True)
class Difference:
    """Accuracy of one classifier less that of another on the same photos (Agresti and Min, Stat. Med. 24:729, 2005).

    Attributes:
        share: The difference, -1 to 1.
        low: Lower end of the 95 % interval.
        high: Its upper end.
        enough: Photos with which the interval would exclude 0, if the difference stays; None if there is none.
    """

    share: float
    low: float
    high: float
    enough: int | None

    @property
    def level(self) -> bool:
        """Return True if the interval includes 0."""
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        low, share, high = (f"{100 * value:+.1f}" for value in (self.low, self.share, self.high))
        return f"{share} points (95 % interval {low} to {high})"


def paired_difference(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Difference:
    """Return the difference of two accuracies; half a photo is added to each of the four cells of the table.

    Args:
        first: (N,) flags of photos that one classifier gets right.
        second: (N,) the same of the other.
    """
    more, fewer = int((first & ~second).sum()), int((second & ~first).sum())
    count = len(first) + 2
    middle, spread = (more - fewer) / count, (more + fewer + 1) / count
    half = Z95 * math.sqrt((spread - middle**2) / count)
    enough = math.ceil(Z95**2 * (spread - middle**2) / middle**2) if more != fewer else None
    return Difference((more - fewer) / len(first), middle - half, middle + half, enough)
