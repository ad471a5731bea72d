"""The calibration of a bank file, as ``sar-bank calibrate`` fits it: temperature, thresholds, prediction sets.

They hold for exactly the classes and photos, and the model of the image features, that they were fitted with. Edits
leave them in the file, so that they hold again once the edits are rolled back. Until then temperature and thresholds
are those of before, and no score is said to be calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sar_infer.errors import BankError


class Classes(Protocol):
    """The classes of a state, as far as a calibration needs them."""

    @property
    def content_digest(self) -> str: ...  # noqa: D102
    @property
    def background_names(self) -> frozenset[str]: ...  # noqa: D102


@dataclass(frozen=True)
class BankCalibration:
    """The calibration of a bank.

    Attributes:
        content_digest: Of the bank that it was fitted with: names, rows and photos.
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

    def fits(self, state: Classes) -> bool:
        """Return True if a state has the classes, photos and background that it was fitted with."""
        return {*self.background} == state.background_names and self.content_digest == state.content_digest
