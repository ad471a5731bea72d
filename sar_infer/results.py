"""Results of classification, the options of a call, and the profile of its time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sar_infer.errors import InputError

Source = Literal["bank", "extended"]
"""Source of a class: the bank, or a name given with the call."""


@dataclass(frozen=True)
class DecisionOptions:
    """Options for the output of a result in addition to the best classes.

    Attributes:
        unknown: Give no class to an image that seems to be none of the classes.
        threshold: Probability, 0..1, above which an image is called unknown, instead of the bank's own; a
            class with a threshold of its own in the bank is judged by that.
        coverage: Give the set of classes that contains the true one with this probability, 0..1.
        explain: Give the reasons for the best class.
        guesses: Give the best classes of an unknown image all the same.

    Raises:
        InputError: There is a ``threshold`` without ``unknown``, or a number is out of range.
    """

    unknown: bool = False
    threshold: float | None = None
    coverage: float | None = None
    explain: bool = False
    guesses: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not self.unknown:
            raise InputError("a threshold is for unknown: ask for unknown too")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"threshold: expected a probability, 0 to 1, got {self.threshold:g}")
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise InputError(f"coverage: expected a number between 0 and 1, got {self.coverage}")


PLAIN = DecisionOptions()
"""The best classes and nothing else."""


@dataclass(frozen=True)
class Prediction:
    """One class for one image.

    Attributes:
        label: The class name.
        score: Probability of this class, 0..1, if it is one of the classes of the call.
        logit: What the score is the softmax of; without class model and photos ``logit_scale * similarity``.
        similarity: Cosine between the embeddings of image and class name, -1..1.
        source: Source of the class.
    """

    label: str
    score: float
    logit: float
    similarity: float
    source: Source


@dataclass(frozen=True)
class Explanation:
    """Why the best class was chosen.

    Attributes:
        margin: Its score less the runner-up's; None if there is no other class.
        runner_up: The second best class.
        nearest: Classes whose embeddings are most similar to the best class's, with their cosines, the nearest first.
        background: The best background class, if it scores more than every other class.
    """

    margin: float | None
    runner_up: str | None
    nearest: tuple[tuple[str, float], ...]
    background: str | None = None


@dataclass(frozen=True)
class ImageResult:
    """The result of one image.

    Attributes:
        image: The name of the image.
        predictions: The best classes, the best first; none if the image could not be read, or is called unknown.
        error: The reason why it could not be read; None if it could.
        unknown: Probability that it is none of the classes; None if it could not be read.
        reason: Why it is called unknown, in words: with ``DecisionOptions.unknown``, or if a background class scores
            more than every other class. None if it is not.
        label_set: The classes of the prediction set, which may be empty; None if it was not asked for.
        explanation: The reasons for the best class; None if they were not asked for.
    """

    image: str
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None
    unknown: float | None = None
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
