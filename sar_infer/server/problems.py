"""Everything that a request can be refused for: a stable code, a status, and the answer in each protocol's form."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

CODES = {
    "bad-request": (400, "Bad request"),
    "unauthorised": (401, "A key is needed"),
    "writes-disabled": (403, "This server takes no changes"),
    "not-found": (404, "Not found"),
    "method-not-allowed": (405, "Method not allowed"),
    "body-timeout": (408, "The body did not arrive in time"),
    "conflict": (409, "The change does not fit"),
    "precondition-failed": (412, "Precondition failed"),
    "body-too-large": (413, "Body too large"),
    "too-many-images": (413, "Too many images"),
    "image-too-large": (413, "Image too large"),
    "unsupported-media-type": (415, "Unsupported content type"),
    "unsupported-format": (415, "Not an image of an accepted format"),
    "misdirected": (421, "This server has another name"),
    "undecodable-image": (422, "The image cannot be decoded"),
    "bad-class-name": (422, "Class name that cannot be used"),
    "too-many-classes": (422, "Too many class names"),
    "invalid-request": (422, "Invalid request"),
    "bad-bundle": (422, "The bundle is refused"),
    "overloaded": (429, "Too busy"),
    "internal": (500, "Internal error"),
    "not-implemented": (501, "Not implemented"),
    "unavailable": (503, "No worker is there"),
    "bank-unusable": (503, "The bank cannot be used"),
    "draining": (503, "Shutting down"),
    "deadline": (504, "Took too long"),
    "not-stored": (507, "The change cannot be written"),
}
"""Status and title of each code."""
IMAGE_CODES = {"format": "unsupported-format", "size": "image-too-large", "unreadable": "undecodable-image"}
"""The code of each ``ImageError.kind``."""


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """The refusal of a request.

    Args:
        code: One of ``CODES``.
        detail: One sentence: what was expected, what arrived, and what to do.
        retry_after: Seconds after which a retry makes sense.
    """

    def __init__(self, code: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status, self.title = CODES[code]
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
        if code == "unauthorised":
            self.headers["WWW-Authenticate"] = "Bearer"


def answer(problem: Problem, scope: Scope, shape: Callable[[Problem], Any] | None) -> Response:
    """Return the response for a problem, in the shape of the request's protocol if it has one; ``front`` counts it."""
    scope["state"]["problem"] = problem.code
    kind = "application/json"
    content: Any
    if shape is not None:
        content = shape(problem)
    elif (scope["path"] + "/").startswith("/v1/embeddings/"):  # the error object that OpenAI's clients read
        blamed = "invalid_request_error" if problem.status < 500 else "server_error"
        content = {"error": {"message": problem.detail, "type": blamed, "param": None, "code": problem.code}}
    else:  # RFC 9457
        kind = "application/problem+json"
        content = {
            "type": f"urn:sar-clip:problem:{problem.code}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
            "code": problem.code,
            "request_id": scope["state"]["request_id"],
        }
    return Response(json.dumps(content, ensure_ascii=False), problem.status, problem.headers, kind)


def public(error: Exception, *paths: Path | None) -> str:
    """Return an error's message as an answer may have it: with the names of files of the server, not their paths."""
    text = str(error)
    for path in filter(None, paths):
        text = text.replace(str(path), path.name)
    return text


class Quota:
    """Counts work of one kind, refuses what would exceed a limit, and knows how long work takes.

    If nothing is under way, the next piece of work is let in however large it is.

    Args:
        most: Units at once.
        reason: What there is too much of.
    """

    def __init__(self, most: int, reason: str) -> None:
        self.held = 0
        self._most = most
        self._reason = reason
        self._seconds_each = 0.05

    @property
    def full(self) -> bool:
        """Tell whether no further unit is let in."""
        return self.held >= self._most

    @contextlib.contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Count units of work until the block ends, and time them.

        Raises:
            Problem: ``overloaded``.
        """
        if count and self.held and self.held + count > self._most:
            raise self.refusal()
        self.held += count
        start = time.perf_counter()
        try:
            yield
        finally:
            if count:
                each = (time.perf_counter() - start) / self.held
                self._seconds_each += 0.1 * (each - self._seconds_each)
            self.held -= count

    def refusal(self) -> Problem:
        """Return the problem of work that is not let in; clients retry when what is held is done."""
        return Problem("overloaded", f"{self._reason}; try again", self.held * self._seconds_each)
