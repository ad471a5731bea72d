"""Results of classification, and the options of a call."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sar_infer.errors import InputError

_SIDE = 240
"""Pixels of the longer side of a photo in a notebook."""
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
        several: Give each class that the image shows, from the image and its quarters.

    Raises:
        InputError: There is a ``threshold`` without ``unknown``, or a number is out of range; or ``several`` with one
            of the others.
    """

    unknown: bool = False
    threshold: float | None = None
    coverage: float | None = None
    explain: bool = False
    guesses: bool = False
    several: bool = False

    def __post_init__(self) -> None:
        if self.several and self.threshold is not None:
            raise InputError(
                "several: a class has its own threshold (sar-bank set FILE CLASS --threshold); leave threshold out"
            )
        if self.threshold is not None and not self.unknown:
            raise InputError("a threshold is for unknown: ask for unknown too")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"threshold: expected a probability, 0 to 1, got {self.threshold:g}")
        if self.several and (self.unknown or self.explain or self.coverage is not None):
            raise InputError("several: includes unknown; leave unknown, coverage and explain out")
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise InputError(f"coverage: expected a number between 0 and 1, got {self.coverage}")


PLAIN = DecisionOptions()
"""The best classes and nothing else."""


class _Attributes:
    """Names the attributes that there are to whoever asks for those of another library."""

    def __getattr__(self, name: str) -> Any:
        if name in ("boxes", "plot", "probs", "show", "to_dict", "top1"):
            raise AttributeError(f"{name}: a result has label, score, predictions and as_row()")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


@dataclass(frozen=True)
class Prediction(_Attributes):
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

    def __getitem__(self, name: str) -> Any:
        return vars(self)[name]


class Label(NamedTuple):
    """A class that an image shows, among several.

    Attributes:
        label: The class name.
        score: Its probability, 0..1.
        box: Left, top, right and bottom of the crop where it is most probable, as shares of width and height: a hint
            where to look.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


class Neighbour(NamedTuple):
    """A photo that taught the bank: its path, or the digest of its pixels, its class, and its cosine, -1..1."""

    photo: str
    label: str
    similarity: float


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
class ImageResult(_Attributes):
    """The result of one image.

    Attributes:
        image: The name of the image.
        predictions: The best classes, the best first; none if the image could not be read, or is called unknown.
        error: The reason why it could not be read; None if it could.
        unknown: Probability that it is none of the classes; None if it could not be read.
        unknown_threshold: Probability above which it is called unknown; None if no threshold is known.
        reason: Why it is called unknown, in words: with ``DecisionOptions.unknown``, or if a background class scores
            more than every other class. None if it is not.
        label_set: The classes of the prediction set, which may be empty; None if it was not asked for.
        explanation: The reasons for the best class; None if they were not asked for.
        labels: With ``DecisionOptions.several`` the classes that it shows, the most probable first, perhaps none. Each
            score, of ``predictions`` too, is then the largest of the image and its quarters, and ``unknown`` the
            smallest. None if they were not asked for.
        banks: The result by each of several banks, by its name; the fields before are then empty. None for one bank.
    """

    image: str
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None
    unknown: float | None = None
    unknown_threshold: float | None = None
    reason: str | None = None
    label_set: tuple[str, ...] | None = None
    explanation: Explanation | None = None
    labels: tuple[Label, ...] | None = None
    banks: Mapping[str, ImageResult] | None = None

    @property
    def label(self) -> str | None:
        """Return the best class; None if there is none, as for an unknown image."""
        return self.predictions[0].label if self.predictions else None

    @property
    def score(self) -> float | None:
        """Return the score of the best class, 0..1; None if there is none."""
        return self.predictions[0].score if self.predictions else None

    def as_row(self) -> dict[str, Any]:
        """Return image, label, score, unknown and error, as a row of a table."""
        return {name: getattr(self, name) for name in ("image", "label", "score", "unknown", "error")}

    def __str__(self) -> str:
        if self.banks is not None:
            return "\n".join(f"{name}, {result}" for name, result in self.banks.items())
        best = ", ".join(f"{one.label} {one.score:.1%}" for one in self.predictions)
        return f"{self.image}: {self.error or best or f'unknown ({self.reason})'}"

    def __getitem__(self, rank: int) -> Prediction:
        return self.predictions[rank]

    def _repr_html_(self) -> str:
        from sar_infer.images.thumbnail import picture_of

        style, source = "background: #48c; height: .4em; width", picture_of(self.image, _SIDE)
        picture = source and f"<img src='{source}' style='max-width: 12em'>"  # bytes and arrays have no file
        shares = [(html.escape(one.label), f"{one.score:.1%}") for one in self.predictions]
        bars = "".join(f"<div>{name} {share}<div style='{style}: {share}'></div></div>" for name, share in shares)
        bars = f"<div style='width: 16em'>{bars or html.escape(str(self))}</div>"
        return f"<div style='display: flex; gap: 1em'>{picture or ''}{bars}</div>"
