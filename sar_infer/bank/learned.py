"""Two records of a bank: its calibration, and sums over photos without labels.

A calibration holds for exactly the classes, photos and class model that it was fitted with. Edits leave it in the bank,
so that it holds again once they are rolled back. Until then the class model's own numbers apply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.entry import Record
from sar_infer.errors import BankError


@dataclass(frozen=True)
class BankCalibration:
    """The calibration of a bank.

    Attributes:
        content_digest: Of the bank that it was fitted with.
        model_digest: Of the class model that made the logits; empty if none was fitted.
        background: The classes that were background.
        temperature: Logits are divided by it.
        unknown: Probability above which an image is called unknown.
        least: The least score of a class in a prediction set, for each of its coverages.
        measured: How well all of it holds on images that it was not fitted on.

    Raises:
        BankError: A number is out of range.
    """

    content_digest: str
    model_digest: str
    background: tuple[str, ...]
    temperature: float
    unknown: float
    least: tuple[float, ...]
    measured: Mapping[str, Any]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> BankCalibration:
        """Return the calibration of a record's JSON."""
        return cls(**{**data, **{key: tuple(data[key]) for key in ("background", "least")}})

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf or not all(0 <= share <= 1 for share in (self.unknown, *self.least)):
            raise BankError(f"calibration: expected a temperature above 0 and thresholds of 0 to 1, got {self}")


@dataclass(frozen=True, eq=False)
class Learned:
    """Sums over photos without labels, which contain no single photo, for `sar_infer.bank.learn`.

    Attributes:
        translation: (D,) float32, added to the embedding of an image.
        by_key: Weighted sum (D,) float32 of unit embeddings and weighted count of photos, by the key of the class.
        photos: Number of photos that were looked at; 0 clears what was learned before.
        numbers: Further numbers, such as the share of unknown images; nothing reads them.
        stale: Classes or embeddings were added since, or the model was fitted again: learn again.
    """

    translation: Floats
    by_key: Mapping[str, tuple[Floats, float]]
    photos: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    stale: bool = False

    @classmethod
    def of(cls, record: Record, present: Mapping[str, Any], classes: Mapping[str, str]) -> Learned:
        """Return what a record has learned, of the classes that are present.

        Args:
            record: The record.
            present: Classes by key.
            classes: ``ClassBank.known_classes`` now.
        """
        data, arrays = record.data, record.arrays
        pairs = zip(data["keys"], arrays["sums"], arrays["counts"].tolist(), strict=True)
        by_key = {key: (row, count) for key, row, count in pairs if key in present}
        then = {key: digest for key, digest in data["classes"].items() if key in present or key.startswith("@")}
        return cls(arrays["translation"], by_key, data["photos"], data["numbers"], then != dict(classes))

    def record(self, classes: Mapping[str, str]) -> Record:
        """Return the record from which `of` builds the same, given ``ClassBank.known_classes``."""
        sums = np.array([row for row, _ in self.by_key.values()], np.float32).reshape(-1, len(self.translation))
        counts = np.array([count for _, count in self.by_key.values()], np.float64)
        data = {"keys": [*self.by_key], "numbers": dict(self.numbers), "photos": self.photos, "classes": dict(classes)}
        return Record(data, {"sums": sums, "counts": counts, "translation": self.translation})
