"""The next question: which photo, and which photos with it.

While answers still bring new classes, the photo that covers most of what no answer is near to (facility location over
the heap). Then the photo that most doubtful photos resemble. With it come the photos that are believed to be of the
same class, above a similarity that is learnt from the photos that were unticked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices

SAMPLE = 2048
"""Photos that a choice looks at, a random part of the heap."""
MOST = 24
"""Photos of a group."""
_NEW = 20
"""Latest questions of which one must have brought a new class, for the heap to be covered further."""
_BELIEVED = 0.6
"""Least probability that a photo is of the class of the chosen one."""
_STEEP = 8.0
"""Slope of that probability, over the distance from the mean similarity to the median nearest neighbour's."""
_PRIOR = 0.25
"""Standard deviation of the learnt similarity before any answer, in the same unit."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A random part of the heap.

    Attributes:
        photos: (S,) numbers of photos, ascending.
        similarity: (S, S) cosines of their embeddings.
        mean: Mean cosine of two photos.
        near: Median cosine of a photo and its nearest neighbour.
    """

    photos: Indices
    similarity: Floats
    mean: float
    near: float

    @classmethod
    def of(cls, photos: Indices, rows: Floats) -> Sample:
        """Return the sample of photos with these unit rows (S, D)."""
        similarity: Floats = rows @ rows.T
        if (size := len(rows)) < 2:
            return cls(photos, similarity, 0.0, 1.0)
        mean = (float(similarity.sum()) - size) / (size * (size - 1))
        others = similarity.copy()
        np.fill_diagonal(others, -1)
        return cls(photos, similarity, mean, max(float(np.median(others.max(axis=1))), mean + 1e-3))

    @property
    def floor(self) -> float:
        """Return the cosine below which photos are not near each other; from the heap, since encoders differ."""
        return self.mean + 0.55 * (self.near - self.mean)

    def resemblance(self) -> Floats:
        """Return how near photos are to each other (S, S), 0 or more."""
        result: Floats = np.maximum(self.similarity - np.float32(self.floor), 0)
        return result


def brings_classes(labels: Sequence[str | None]) -> bool:
    """Return whether the latest answers still brought new classes; ``labels`` has one of each question, in order."""
    first = {label: number for number, label in reversed([*enumerate(labels)])}
    return len(labels) < _NEW or max(first.values()) >= len(labels) - _NEW


def covering(sample: Sample, open_: npt.NDArray[np.bool_], covered: Floats) -> int:
    """Return the position (0 to S - 1) of the open photo that covers most of the sample.

    Args:
        sample: The sample.
        open_: (S,) True for photos to choose from, at least one.
        covered: (S,) largest cosine of each photo and an answered one.
    """
    near = np.maximum(covered - np.float32(sample.floor), 0)
    gains = np.maximum(sample.resemblance() - near[:, None], 0).sum(axis=0)
    return int(np.where(open_, gains, -1).argmax())


def doubtful(sample: Sample, open_: npt.NDArray[np.bool_], probabilities: npt.NDArray[Any]) -> int:
    """Return the position (0 to S - 1) of the open photo that most doubtful open photos resemble.

    Args:
        sample: The sample.
        open_: (S,) True for photos to choose from, at least one.
        probabilities: (S, C) of the classes, at least two.
    """
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    doubt = (1 - best[:, 1] + best[:, 0]) * open_
    return int(np.where(open_, doubt.astype(np.float32) @ sample.resemblance(), -1).argmax())


def threshold(sample: Sample, cosines: Floats, same: npt.NDArray[np.bool_]) -> float:
    """Return the least cosine of a photo that comes with another one, likeliest after the groups so far.

    Args:
        sample: The sample, which gives the scale.
        cosines: (N,) of photos that came with another one.
        same: (N,) whether they were of its class; the least cosine rises where a group comes out mixed.
    """
    unit = sample.near - sample.mean
    offsets = np.linspace(-0.5, 2.0, 101)  # in units, from the median nearest neighbour
    steps = _STEEP * ((cosines - sample.near) / unit - offsets[:, None])
    fit = -np.logaddexp(0, np.where(same, -steps, steps)).sum(axis=1) - (offsets / _PRIOR) ** 2 / 2
    offset = offsets[fit.argmax()] + np.log(_BELIEVED / (1 - _BELIEVED)) / _STEEP
    return float(sample.near + offset * unit)


def companions(cosines: Floats, covered: Floats, alike: npt.NDArray[np.bool_], least: float) -> Indices:
    """Return the positions of the photos to show with a chosen one, the nearest first, 23 at most.

    Args:
        cosines: (N,) of open photos and the chosen one.
        covered: (N,) largest cosine of each and an answered photo.
        alike: (N,) True where the class believed is that of the chosen photo.
        least: The least cosine, of `threshold`.
    """
    chosen = np.flatnonzero((cosines >= least) & (alike | (cosines > covered)))
    result: Indices = chosen[np.argsort(-cosines[chosen], kind="stable")][: MOST - 1]
    return result
