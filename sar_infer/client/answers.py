"""What a server answers, as results, or as the error that it tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sar_infer.errors import ServerError
from sar_infer.results import Explanation, ImageResult, Prediction

T = TypeVar("T")
_SHOWN = 200


@dataclass(frozen=True)
class Reply:
    """An answer as it came; header names are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class ClassEntry:
    """One class of the server's bank.

    Attributes:
        name: The class name.
        origin: Whether it came with the bundle or was added at run time.
        phrases: What is encoded for it; of a bundle's class, its name.
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
        """The class names, in the bank's order."""
        return tuple(entry.name for entry in self.classes)


def read(reply: Reply, parse: Callable[[Any], T]) -> T:
    """What ``parse`` makes of a JSON answer.

    Raises:
        ServerError: ``unreadable-answer``, where it is no JSON or lacks something.
    """
    try:
        return parse(json.loads(reply.body))
    except (AttributeError, KeyError, LookupError, TypeError, ValueError):
        detail = f"{reply.url}: expected an answer of sar-serve, got {_start(reply)}"
        raise ServerError(detail, reply.status, "unreadable-answer", reply.headers.get("x-request-id")) from None


def image_result(name: str, found: Any, given: Mapping[str, str]) -> ImageResult:
    """One of ``results`` of ``/v1/classify``, with the picture and the classes under the caller's names.

    Args:
        name: Of the picture.
        found: The result.
        given: Class names as they were given, by the server's spelling.
    """
    predictions = tuple(
        Prediction(
            given.get(p["label"], p["label"]),
            float(p["score"]),
            float(p["logit"]),
            float(p["similarity"]),
            p["source"],
            p.get("calibrated", False),  # which a server of version 0.1 does not tell
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
    """One of ``classes`` of ``/v1/classes``."""
    return ClassEntry(found["name"], found["origin"], tuple(found["phrases"]))


def error_of(reply: Reply) -> ServerError:
    """The error that an answer tells, in any of the server's dialects, or in none: a proxy may have answered."""
    code, detail = f"http-{reply.status}", f"{reply.url} answered {_start(reply)}"
    try:
        told = json.loads(reply.body)
        error = told.get("error", told)
        if isinstance(error, str):
            detail = error
        else:
            detail = str(error.get("detail") or error["message"])
            code = str(error["code"] or code)
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    return ServerError(detail, reply.status, code, reply.headers.get("x-request-id"))


def _start(reply: Reply) -> str:
    """The beginning of an answer that cannot be read, on one line."""
    text = " ".join(reply.body[: 2 * _SHOWN].decode("utf-8", "replace").split())[:_SHOWN]
    return f"status {reply.status} and {text!r}" if text else f"status {reply.status} without a body"
