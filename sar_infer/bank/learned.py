"""The state that photos give a bank as a whole: its calibration, class statistics, and sums over photos without labels.

A calibration, as ``sar-bank calibrate`` fits it, holds for exactly the classes and photos, and the model of the image
features, that it was fitted with. Edits leave it in the file, so that it holds again once they are rolled back. Until
then temperature and thresholds are those of before, and no score is said to be calibrated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.errors import BankError
from sar_infer.storage.tensor_file import tensor_bytes


@dataclass(frozen=True)
class BankCalibration:
    """The calibration of a bank.

    Attributes:
        content_digest: Of the bank that it was fitted with: names, rows, photos and what these taught.
        model_digest: Of the model that composed the logits, from `classifiers.statistics.model_digest`.
        branch: The branch that answered.
        calibrated: The classes that there were photos of.
        background: The classes that were background.
        temperature: Logits are divided by it.
        thresholds: Least ``score``, largest ``energy`` and, with class statistics, ``distance`` of a known image.
        conformal: By coverage (``"0.9"``), the least score of a class in the set.
        measured: How well all of it holds on images that it was not fitted on.

    Raises:
        BankError: A number is not finite or out of range.
    """

    content_digest: str
    model_digest: str
    branch: Literal["text", "head", "statistics"]
    calibrated: tuple[str, ...]
    background: tuple[str, ...]
    temperature: float
    thresholds: Mapping[str, float]
    conformal: Mapping[str, float]
    measured: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not math.isfinite(self.temperature) or self.temperature <= 0:
            raise BankError(f"calibration: expected a finite temperature above 0, got {self.temperature}")
        if self.thresholds.keys() - {"distance"} != {"score", "energy"} or not all(
            map(math.isfinite, self.thresholds.values())
        ):
            raise BankError("calibration: expected finite thresholds for score, energy and perhaps distance")
        if not all(0 <= score <= 1 for score in self.conformal.values()):
            raise BankError("calibration: expected conformal scores of 0 to 1")
        if len({*self.calibrated}) < len(self.calibrated):
            raise BankError("calibration: a class is listed twice")


FittedTensors = Mapping[str, npt.NDArray[Any]]
"""Class statistics by tensor name, as ``Statistics.tensors`` returns them; a bank keeps them and reads none."""
NOTHING = bytes(32)
"""Identity of statistics or sums that are not there."""


@dataclass(frozen=True, eq=False)
class Learned:
    """Sums over photos without labels, which hold no single photo.

    Attributes:
        translation: (D,) float32, what is added to the row of an image.
        by_slot: Weighted sum (D,) float32 of unit image rows and weighted count of photos, by slot of the class.
        numbers: Further numbers of whoever learned, such as a temperature.
        photos: Number of photos that were looked at.
        stale: Classes came or got other rows since, or statistics were fitted anew: learn again.
    """

    translation: Floats
    by_slot: Mapping[int, tuple[Floats, float]]
    numbers: Mapping[str, float]
    photos: int
    stale: bool = False

    def identity(self, positions: Sequence[int] | Indices | None = None) -> bytes:
        """Return a SHA-256 of the content.

        Args:
            positions: The position of each class, in the order of slots; None takes the slots.
        """
        slots = sorted(self.by_slot)
        digest = hashlib.sha256(json.dumps([dict(sorted(self.numbers.items())), self.photos, self.stale]).encode())
        arrays: tuple[npt.NDArray[Any], ...] = (
            np.asarray(slots if positions is None else positions, np.int64),
            np.array([self.by_slot[slot][1] for slot in slots], np.float64),
            self.translation,
            *(self.by_slot[slot][0] for slot in slots),
        )
        for array in arrays:
            digest.update(b"".join(tensor_bytes(array)))
        return digest.digest()

    def moved(self, slots: Mapping[int, int]) -> Learned:
        """Return the same with other slots, given by the slots here; classes without one are left out."""
        by_slot = {slots[slot]: sums for slot, sums in self.by_slot.items() if slot in slots}
        return dataclasses.replace(self, by_slot=by_slot)


def fitted_identity(tensors: FittedTensors | None) -> bytes:
    """Return a SHA-256 over tensors in the order of their names; ``NOTHING`` without any."""
    if not tensors:
        return NOTHING
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        for piece in tensor_bytes(array):
            digest.update(piece)
    return digest.digest()


def learned_identity(learned: Learned | None, positions: Sequence[int] | Indices | None = None) -> bytes:
    """Return ``Learned.identity``; ``NOTHING`` if nothing was learned."""
    return NOTHING if learned is None else learned.identity(positions)
