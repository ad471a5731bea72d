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
        calibrated: Whether ``score`` was calibrated on held-out photos of this class; never so for a class that was
            added after the bundle was made.
    """

    label: str
    score: float
    logit: float
    similarity: float
    source: Source
    calibrated: bool = False


@dataclass(frozen=True)
class Explanation:
    """Why the best class was chosen.

    Attributes:
        margin: Its score less the runner-up's; None where there is no other class.
        runner_up: The second best class.
        energy: ``-T logsumexp(logits / T)`` over all classes of the call; the lower, the more familiar the photo.
        nearest: Classes whose embeddings are most similar to the best class's, with their cosines, the nearest first.
        background: The background class that scored best, where one beats every real class.
    """

    margin: float | None
    runner_up: str | None
    energy: float
    nearest: tuple[tuple[str, float], ...]
    background: str | None = None


@dataclass(frozen=True)
class ImageResult:
    """The best classes of one image, the best first; none, and the reason in ``error``, where it could not be read.

    ``branch`` is the same for all images of a call, since it is the call's classes that decide it.

    What follows is None where it was not asked for: ``unknown`` says that the best class is not to be believed, and
    ``reason`` why; ``label_set`` holds the classes of a conformal set; ``explanation`` more about the best class.
    """

    image: str
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None
    branch: Branch = "text"
    unknown: bool | None = None
    reason: str | None = None
    label_set: tuple[str, ...] | None = None
    explanation: Explanation | None = None
