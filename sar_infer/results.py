"""Results: what classification returns, what a call may ask for beside it, and where the time went."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sar_infer.errors import InputError

Source = Literal["bank", "extended"]
"""Where a class comes from: the bank, or a name given with the call."""
Branch = Literal["text", "head+text"]
"""What answers for the classes of a call: the text branch alone, or the bundle's class head with it."""

Unknown = Literal["score", "energy"]
"""What tells an unknown thing from a known one: a low score of the best class, or a high energy of all."""


@dataclass(frozen=True)
class DecisionOptions:
    """What a call wants to be told beside the best classes.

    Attributes:
        unknown: Say whether the best class is to be believed, by its score or by the energy.
        threshold: In place of the bundle's, 0..1 for a score; a class that has its own in the bank keeps that.
        coverage: Give the set of classes that holds the true one with this probability, 0..1.
        explain: Give the reasons for the best class.

    Raises:
        InputError: ``threshold`` without ``unknown``, or a number that cannot be meant.
    """

    unknown: Unknown | None = None
    threshold: float | None = None
    coverage: float | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        if self.unknown not in (None, "score", "energy"):
            raise InputError(f"unknown: expected score or energy, got {self.unknown!r}")
        if self.threshold is not None and self.unknown is None:
            raise InputError("a threshold is for unknown: ask for that too (--unknown)")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"threshold: expected a finite number, got {self.threshold}")
        if self.threshold is not None and self.unknown == "score" and not 0 <= self.threshold <= 1:
            raise InputError(f"threshold: a score is between 0 and 1, got {self.threshold:g}")
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise InputError(f"coverage: expected a number between 0 and 1, got {self.coverage}")


PLAIN = DecisionOptions()
"""The best classes and no more."""


@dataclass(frozen=True)
class Prediction:
    """One class for one image.

    Attributes:
        label: The class name.
        score: Softmax probability over all classes of the call, 0..1, of the logits over the bundle's temperature.
        logit: ``logit_scale * similarity`` (plus the bias, where the bundle has one); with a head, this and the
            head's logit, mixed. Not divided by the temperature.
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

    What follows is None where it was not asked for: ``unknown`` says whether the best class is not to be believed, and
    ``reason`` why; where it was asked for and nothing can judge this class, ``unknown`` is None and ``reason`` says
    so. ``label_set`` holds the classes of a conformal set, perhaps none; ``explanation`` more about the
    best class. Where a background class of the bank beats every other, ``unknown`` says so unasked.
    """

    image: str
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None
    branch: Branch = "text"
    unknown: bool | None = None
    reason: str | None = None
    label_set: tuple[str, ...] | None = None
    explanation: Explanation | None = None


class Profile:
    """Seconds by phase, summed over calls and threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time spent inside the ``with`` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
