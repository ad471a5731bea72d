"""Limits from scores of held-out images: the threshold of *unknown*, and quantiles of prediction sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
COVERAGES = (0.8, 0.9, 0.95)
"""Of prediction sets."""
KNOWN = 0.95
"""Share of images of known classes that are not called unknown."""


def upper_limit(values: Doubles, spread: float = 1.0, photos: float = 4.0) -> float:
    """Return a limit that a further value of a normal distribution exceeds with probability ``1 - KNOWN``, from few.

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
