"""Answers of a server, parsed: results and the classes of its bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sar_infer.results import Explanation, ImageResult, Prediction

T = TypeVar("T")


@dataclass(frozen=True)
class ClassEntry:
    """One class of the server's bank.

    Attributes:
        name: The class name.
        origin: Whether it came with the bundle or was added at run time.
        phrases: The texts that are encoded for it; for a class of the bundle, its name.
        photos: Number of photos that it got at run time.
        photos_only: Its name means nothing, only its photos say what it is.
    """

    name: str
    origin: Literal["bundle", "added"]
    phrases: tuple[str, ...]
    photos: int = 0
    photos_only: bool = False


@dataclass(frozen=True)
class PhotoFinding:
    """A finding of the server about a photo, or about a class with its photos.

    Attributes:
        kind: ``wrong-class`` or ``confused``.
        message: One sentence; ``image[i]`` is the photo's place in its request.
        suggestion: The other class, if there is one.
    """

    kind: str
    message: str
    suggestion: str | None = None


@dataclass(frozen=True)
class PhotosAdded:
    """The effect of adding photos to a class.

    Attributes:
        etag: The bank's ETag after it.
        photos: Number of photos that the class has now.
        known: Number of photos that were left out, because they are counted already.
        findings: What is odd about them.
        created: The class was made by this call.
    """

    etag: str
    photos: int
    known: int
    findings: tuple[PhotoFinding, ...] = ()
    created: bool = False


@dataclass(frozen=True)
class ClassList:
    """The server's bank at one moment; ``etag`` goes into ``if_match`` of a change."""

    classes: tuple[ClassEntry, ...]
    etag: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return the class names, in the bank's order."""
        return tuple(entry.name for entry in self.classes)


def image_result(name: str, result: Any, spellings: Mapping[str, str]) -> ImageResult:
    """Parse one of ``results`` of ``/v1/classify``; image and classes get the caller's names.

    Args:
        name: The caller's name of the image.
        result: The result as parsed JSON.
        spellings: The caller's class names, by the server's spelling.
    """
    predictions = tuple(
        Prediction(
            spellings.get(p["label"], p["label"]),
            float(p["score"]),
            float(p["logit"]),
            float(p["similarity"]),
            p["source"],
            p.get("calibration", "none"),  # missing in answers of older servers
        )
        for p in result["predictions"]
    )
    label_set, why = result.get("label_set"), result.get("explanation")
    return ImageResult(
        name,
        predictions,
        result["error"],
        result["branch"],
        result.get("unknown"),
        result.get("reason"),
        None if label_set is None else tuple(spellings.get(n, n) for n in label_set),
        None if why is None else _explanation(why, spellings),
    )


def _explanation(why: Any, spellings: Mapping[str, str]) -> Explanation:
    names = {kind: spellings.get(why[kind], why[kind]) for kind in ("runner_up", "background")}
    return Explanation(**{**why, **names, "nearest": tuple((spellings.get(n, n), float(c)) for n, c in why["nearest"])})


def class_entry(entry: Any) -> ClassEntry:
    """Parse one of ``classes`` of ``/v1/classes``."""
    counted = entry.get("photos", 0), entry.get("photos_only", False)
    return ClassEntry(entry["name"], entry["origin"], tuple(entry["phrases"]), *counted)


def photos_added(answer: Any, etag: str, *, created: bool) -> PhotosAdded:
    """Parse the answer to a change of a class with photos."""
    findings = tuple(PhotoFinding(one["kind"], one["message"], one["suggestion"]) for one in answer["findings"])
    return PhotosAdded(etag, answer.get("photos", 0), answer["known"], findings, created)
