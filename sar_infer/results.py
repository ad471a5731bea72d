"""What classification returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["bank", "extended"]
"""Where a class comes from: the bank, or a name given with the call."""


@dataclass(frozen=True)
class Prediction:
    """One class for one image.

    Attributes:
        label: The class name.
        score: Softmax probability over all classes of the call, 0..1.
        logit: ``logit_scale * similarity`` (plus the bias, where the bundle has one).
        similarity: Cosine between image and class embedding, -1..1.
        source: Where the class comes from.
    """

    label: str
    score: float
    logit: float
    similarity: float
    source: Source


@dataclass(frozen=True)
class ImageResult:
    """The best classes of one image, the best first; none, and the reason in ``error``, where it could not be read."""

    image: str
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None
