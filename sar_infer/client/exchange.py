"""One request as steps: what to send, what came back, how long to wait. Whoever runs the steps does the waiting."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from sar_infer.client.answers import Reply, error_of

T = TypeVar("T")
TRIED_AGAIN = (429, 503)
LONGEST_PAUSE = 20.0
"""Seconds; a server that asks for more is asked again sooner."""


@dataclass(frozen=True)
class Call:
    """A request.

    Attributes:
        method: Of HTTP.
        path: Below the server's address, percent-encoded.
        query: Pairs of the query string.
        headers: Beside those of every request.
        fields: Of a multipart form; lists stand for repeated fields.
        files: Parts of a multipart form, all named ``image``.
        json: The body, in place of a form.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[bytes] = ()
    json: Any = None


@dataclass(frozen=True)
class Pause:
    """Seconds to wait."""

    seconds: float


Steps = Generator[Call | Pause, Reply | None, T]
"""Yields what is to be done, is sent the reply to a call, and returns a result."""


def answered(call: Call, retries: int) -> Steps[Reply]:
    """The reply to a call; one that was refused because the server is busy or not ready is made again.

    Raises:
        ServerError: it was refused for another reason, or too often.
    """
    attempt = 0
    while True:
        reply = yield call
        assert reply is not None  # noqa: S101 - for the type checker: a call is always answered
        if reply.status < 300:
            return reply
        if reply.status not in TRIED_AGAIN or attempt == retries:
            raise error_of(reply)
        yield Pause(_pause(reply, attempt))
        attempt += 1


def _pause(reply: Reply, attempt: int) -> float:
    """What ``Retry-After`` says, in seconds or as a date; a little more, so that clients do not come back together."""
    asked = reply.headers.get("retry-after", "").strip()
    seconds: float = 0.5 * 2**attempt
    if asked.isdecimal():
        seconds = float(asked)
    elif asked:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            seconds = (parsedate_to_datetime(asked) - parsedate_to_datetime(reply.headers["date"])).total_seconds()
    return max(0.0, min(seconds, LONGEST_PAUSE)) * random.uniform(1, 1.2)
