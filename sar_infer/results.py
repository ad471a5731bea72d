"""Results of classification, the options of a call, and the profile of its time."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from sar_infer.errors import InputError

Source = Literal["bank", "extended"]
"""Source of a class: the bank, or a name given with the call."""
Branch = Literal["text", "text+statistics"]
"""Branches that answer for the classes of a call: the text branch alone, or with it class statistics."""

CalibratedOn = Literal["held-out", "left-out", "none"]
"""The source of a calibration: held-out photos of these classes, classes that were left out in turn, or nothing."""

Unknown = Literal["auto", "score", "energy", "distance"]
"""The sign of an unknown image: a low score of the best class, a high energy over all classes, or a large distance to
the best class under the class statistics; ``auto`` is the distance if its threshold is known, else the score."""


@dataclass(frozen=True)
class DecisionOptions:
    """Options for what a result says beside the best classes.

    Attributes:
        unknown: Say if the image seems to be none of the classes, and by what.
        threshold: Replaces the bundle's threshold, 0..1 for a score; a class with its own in the bank keeps that.
        coverage: Give the set of classes that contains the true one with this probability, 0..1.
        explain: Give the reasons for the best class.

    Raises:
        InputError: there is a ``threshold`` without ``unknown``, or a number is out of range.
    """

    unknown: Unknown | None = None
    threshold: float | None = None
    coverage: float | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        if self.unknown not in (None, *get_args(Unknown)):
            raise InputError(f"unknown: expected auto, score, energy or distance, got {self.unknown!r}")
        if self.threshold is not None and self.unknown is None:
            raise InputError("a threshold is for unknown: ask for that too (--unknown)")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"threshold: expected a finite number, got {self.threshold}")
        if self.threshold is not None and self.unknown in ("auto", "score") and not 0 <= self.threshold <= 1:
            raise InputError(f"threshold: a score is between 0 and 1, got {self.threshold:g}")
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise InputError(f"coverage: expected a number between 0 and 1, got {self.coverage}")


PLAIN = DecisionOptions()
"""The best classes and nothing else."""


@dataclass(frozen=True)
class Prediction:
    """One class for one image.

    Attributes:
        label: The class name.
        score: Softmax probability over all classes of the call, 0..1, of the logits over the bundle's temperature.
        logit: ``logit_scale * similarity`` (plus the bias, if the bundle has one); with
            statistics, this and the image term less the offset, up to a constant for each image. Not divided by the
            temperature.
        similarity: Cosine between image and class embedding, -1..1.
        source: Source of the class.
        calibration: What ``score`` was calibrated on: ``held-out`` photos of this class, ``left-out`` classes (of the
            bundle's training, or of a bank that was fitted), so that it holds for added classes too, or ``none``.
    """

    label: str
    score: float
    logit: float
    similarity: float
    source: Source
    calibration: CalibratedOn = "none"


@dataclass(frozen=True)
class Explanation:
    """Why the best class was chosen.

    Attributes:
        margin: Its score less the runner-up's; None if there is no other class.
        runner_up: The second best class.
        energy: ``-T logsumexp(logits / T)`` over all classes of the call; the lower, the more familiar the image.
        nearest: Classes whose embeddings are most similar to the best class's, with their cosines, the nearest first.
        background: The best background class, if it scores more than every other class.
    """

    margin: float | None
    runner_up: str | None
    energy: float
    nearest: tuple[tuple[str, float], ...]
    background: str | None = None


@dataclass(frozen=True)
class ImageResult:
    """The result of one image.

    Attributes:
        image: The name of the image.
        predictions: The best classes, the best first; none if the image could not be read.
        error: The reason why it could not be read; None if it could.
        branch: The branches that answer; they depend on the call's classes, and are the same for all its images.
        unknown: True if the image seems to be none of the classes. None if that was not asked for, or if there is no
            threshold for this class, which ``reason`` says. If a background class of the bank scores more than every
            other class, it is True even if not asked for.
        reason: The reason for ``unknown``, in words.
        label_set: The classes of the conformal set, which may be empty; None if it was not asked for.
        explanation: The reasons for the best class; None if they were not asked for.
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
    """Seconds of each phase, summed over calls and threads."""

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
