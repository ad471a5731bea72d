"""How far the scores of one branch can be trusted: temperature, thresholds for unknown and for prediction sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.classifiers.scores import COVERAGES, Doubles
from sar_infer.errors import BankError


@dataclass(frozen=True)
class Confidence:
    """Temperature and thresholds from classes left out; checked when built.

    Attributes:
        temperature: T, at least 1; logits are divided by it.
        score: Least best score of a known image.
        energy: Largest energy of a known image.
        others: Number of classes that each was ranked beside, 1 or more.
        conformal: (n, least scores), in rising n from 0 on: the score that a class with n photos needs to be in the
            prediction set, for each of ``COVERAGES``. Classes of one number of photos have thresholds of their own, so
            that sets hold added classes as often as trained ones: label-conditional conformal prediction (Vovk,
            "Conditional validity of inductive conformal predictors", arXiv 1209.2673).
        distance: Largest squared distance of a known image to the mean of the class that comes first; infinite where
            text alone ranks.

    Raises:
        BankError: A number is not finite or out of range.
    """

    temperature: float
    score: float
    energy: float
    others: float
    conformal: tuple[tuple[int, tuple[float, ...]], ...]
    distance: float = math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 1 and math.isfinite(self.energy)):
            raise BankError(f"confidence: expected a finite temperature of 1 or more, got {self.temperature}")
        if not self.distance >= 0:
            raise BankError(f"confidence: expected a distance of 0 or more, got {self.distance}")
        if not (math.isfinite(self.others) and self.others >= 1):
            raise BankError(f"confidence: expected 1 or more other classes, got {self.others}")
        counts = [photos for photos, _ in self.conformal]
        if not counts or counts[0] != 0 or counts != sorted(set(counts)):
            raise BankError("confidence: expected thresholds of sets with rising numbers of photos from 0 on")
        scores = np.array([self.score, *(score for _, least in self.conformal for score in least)])
        if len(scores) != 1 + len(counts) * len(COVERAGES) or not ((scores >= 0) & (scores <= 1)).all():
            raise BankError(f"confidence: expected thresholds of 0 to 1, {len(COVERAGES)} for sets of each kind")

    def thresholds(self, classes: int) -> Mapping[str, float]:
        """Return the thresholds for unknown among so many classes, as a manifest has them."""
        return {"score": float(self._beside(self.score, classes)), "energy": self.energy}

    def least(self, coverage: float, counts: npt.ArrayLike) -> Doubles | None:
        """Return the least score in a set of each class of a call, linear in ``log2(1 + n)`` between numbers of photos.

        Args:
            coverage: One of ``COVERAGES``; None is returned for any other.
            counts: (C,) numbers of photos.
        """
        if coverage not in COVERAGES:
            return None
        number, photos = COVERAGES.index(coverage), np.asarray(counts, np.float64)
        knots = np.log2(1.0 + np.array([n for n, _ in self.conformal], np.float64))
        least = np.interp(np.log2(1.0 + photos), knots, [scores[number] for _, scores in self.conformal])
        return self._beside(least, len(photos))

    def _beside(self, scores: npt.ArrayLike, classes: int) -> Doubles:
        """Return scores as they are beside the other classes of a call, each of which takes as much as those before.

        A score of ``1 / (1 + r)`` beside m classes is ``1 / (1 + r k / m)`` beside k.
        """
        values = np.asarray(scores, np.float64)
        ratio = max(1.0, (classes - 1) / self.others)
        result: Doubles = values / (values + (1 - values) * ratio)
        return result

    def tensors(self, prefix: str = "") -> dict[str, npt.NDArray[Any]]:
        """Return everything as arrays: ``confidence`` (4,), with a distance (5,), and ``conformal`` (K, 1 + coverages).

        Args:
            prefix: Of their names.
        """
        numbers = [self.temperature, self.score, self.energy, self.others]
        return {
            f"{prefix}confidence": np.array(numbers + [self.distance] * math.isfinite(self.distance), np.float64),
            f"{prefix}conformal": np.array([[photos, *least] for photos, least in self.conformal], np.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]], prefix: str = "") -> Confidence | None:
        """Build it from the arrays of `tensors`; None if they are not there.

        Raises:
            BankError: They are unsound.
        """
        numbers, table = (tensors.get(prefix + name) for name in ("confidence", "conformal"))
        if numbers is None or table is None:
            return None
        if numbers.shape not in ((4,), (5,)) or table.ndim != 2 or table.shape[1] != 1 + len(COVERAGES):
            raise BankError(f"confidence: expected (4,) and (K, {1 + len(COVERAGES)}) numbers")
        if not np.isfinite(table).all():
            raise BankError("confidence: a threshold is not finite")
        conformal = tuple((int(row[0]), tuple(map(float, row[1:]))) for row in table.tolist())
        temperature, score, energy, others, *distance = map(float, numbers)
        return cls(temperature, score, energy, others, conformal, *distance)
