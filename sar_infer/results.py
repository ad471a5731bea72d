"""What classification returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["bank", "extended"]
"""Where a class comes from: the bank, or a name given with the call."""
Branch = Literal["text", "head+text"]
"""What answers for the classes of a call: the text branch alone, or the bundle's class head with it."""


@dataclass(frozen=True)
class Prediction:
    """One class for one image.

    Attributes:
        label: The class name.
        score: Softmax probability over all classes of the call, 0..1.
        logit: ``logit_scale * similarity`` (plus the bias, where the bundle has one); with a head, this and the
            head's logit, mixed.
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
    """The best classes of one image, the best first; none, and the reason in ``error``, where it could not be read.

    ``branch`` is the same for all images of a call, since it is the call's classes that decide it.
    """

    image: str
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None
    branch: Branch = "text"
