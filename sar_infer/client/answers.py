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
    """

    name: str
    origin: Literal["bundle", "added"]
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class ClassList:
    """The server's bank at one moment; ``etag`` goes into ``if_match`` of a change."""

    classes: tuple[ClassEntry, ...]
    etag: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return the class names, in the bank's order."""
        return tuple(entry.name for entry in self.classes)


def image_result(name: str, found: Any, given: Mapping[str, str]) -> ImageResult:
    """Parse one of ``results`` of ``/v1/classify``; image and classes get the caller's names.

    Args:
        name: The caller's name of the image.
        found: The result as parsed JSON.
        given: The caller's class names, by the server's spelling.
    """
    predictions = tuple(
        Prediction(
            given.get(p["label"], p["label"]),
            float(p["score"]),
            float(p["logit"]),
            float(p["similarity"]),
            p["source"],
            p.get("calibrated", False),  # missing in answers of version 0.1
        )
        for p in found["predictions"]
    )
    label_set, why = found.get("label_set"), found.get("explanation")
    return ImageResult(
        name,
        predictions,
        found["error"],
        found["branch"],
        found.get("unknown"),
        found.get("reason"),
        None if label_set is None else tuple(given.get(n, n) for n in label_set),
        None if why is None else _explanation(why, given),
    )


def _explanation(why: Any, given: Mapping[str, str]) -> Explanation:
    names = {kind: given.get(why[kind], why[kind]) for kind in ("runner_up", "background")}
    return Explanation(**{**why, **names, "nearest": tuple((given.get(n, n), float(c)) for n, c in why["nearest"])})


def class_entry(found: Any) -> ClassEntry:
    """Parse one of ``classes`` of ``/v1/classes``."""
    return ClassEntry(found["name"], found["origin"], tuple(found["phrases"]))
