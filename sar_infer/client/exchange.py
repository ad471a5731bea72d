"""One exchange with a server: the request, the reply or the error that it reports, retries, and httpx2.

An exchange is a generator of steps that waits for nothing itself; the client that runs the steps does the waiting.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from sar_infer.errors import InputError, ServerError

if TYPE_CHECKING:
    import httpx2

    from sar_infer.images.load import ImageSource

T = TypeVar("T")
TRIED_AGAIN = (429, 503)
_SHOWN = 200
LONGEST_PAUSE = 20.0
"""Seconds; a retry comes sooner than asked for if the server asks for a longer pause."""
_CONNECTIONS = 64


@dataclass(frozen=True)
class Call:
    """A request.

    Attributes:
        method: The HTTP method.
        path: The path below the server's address, percent-encoded.
        query: Pairs of the query string.
        headers: Headers beside those of every request.
        fields: Fields of a multipart form; lists stand for repeated fields.
        files: Parts of a multipart form, all named ``image``.
        json: The body, if there is no form.
        patient: The answer may take longer than the client's timeout.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[bytes] = ()
    json: Any = None
    patient: bool = False


@dataclass(frozen=True)
class Reply:
    """An answer, not parsed; header names are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Pause:
    """Seconds to wait."""

    seconds: float


@dataclass(frozen=True)
class Load:
    """An image to encode, and its number among those of the caller."""

    source: ImageSource
    index: int


Step = Call | Pause | Load
Steps = Generator[Step, Any, T]
"""A generator that yields steps and returns a result; it is sent the reply to a call, and a loaded ``EncodedImage``."""


def answered(call: Call, retries: int) -> Steps[Reply]:
    """Return the reply to a call, retried if the server refuses because it is busy or not ready.

    Raises:
        ServerError: the call was refused for another reason, or too often.
    """
    attempt = 0
    while True:
        reply: Reply = yield call
        if reply.status < 300:
            return reply
        if reply.status not in TRIED_AGAIN or attempt == retries:
            raise error_of(reply)
        yield Pause(_pause(reply, attempt))
        attempt += 1


def _pause(reply: Reply, attempt: int) -> float:
    """Return the seconds of ``Retry-After``, given as a number or a date, plus some, so that clients spread out."""
    retry_after = reply.headers.get("retry-after", "").strip()
    seconds: float = 0.5 * 2**attempt
    if retry_after.isdecimal():
        seconds = float(retry_after)
    elif retry_after:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            seconds = (
                parsedate_to_datetime(retry_after) - parsedate_to_datetime(reply.headers["date"])
            ).total_seconds()
    return max(0.0, min(seconds, LONGEST_PAUSE)) * random.uniform(1, 1.2)


def read(reply: Reply, parse: Callable[[Any], T]) -> T:
    """Parse a JSON answer by ``parse``.

    Raises:
        ServerError: ``unreadable-answer``: it is not JSON, or lacks something.
    """
    try:
        return parse(json.loads(reply.body))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        detail = f"{reply.url}: expected an answer of sar-serve, got {_start(reply)}"
        raise ServerError(detail, reply.status, "unreadable-answer", reply.headers.get("x-request-id")) from None


def error_of(reply: Reply) -> ServerError:
    """Return the error of an answer, in any of the server's formats or, if a proxy answered, in none."""
    code, detail = f"http-{reply.status}", f"{reply.url} answered {_start(reply)}"
    try:
        content = json.loads(reply.body)
        error = content.get("error", content)
        if isinstance(error, str):
            detail = error
        else:
            detail = str(error.get("detail") or error["message"])
            code = str(error["code"] or code)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        pass
    return ServerError(detail, reply.status, code, reply.headers.get("x-request-id"))


def _start(reply: Reply) -> str:
    """Return the beginning of an answer that cannot be parsed, on one line."""
    text = " ".join(reply.body[: 2 * _SHOWN].decode("utf-8", "replace").split())[:_SHOWN]
    return f"status {reply.status} and {text!r}" if text else f"status {reply.status} without a body"


def library() -> Any:
    """Return the module httpx2.

    Raises:
        InputError: it is not installed.
    """
    try:
        import httpx2
    except ModuleNotFoundError:
        raise InputError("the client needs httpx2: pip install 'sar-clip[client]'") from None
    return httpx2


def settings(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """Return the arguments of a client of httpx2.

    Raises:
        InputError: the URL is not one of a server, or the key does not fit into a header.
    """
    http = library()
    try:
        address = http.URL(url)
    except http.InvalidURL:
        address = http.URL("")
    if address.scheme not in ("http", "https") or not address.host:
        raise InputError(f"url: expected http://HOST:PORT or https://…, got {url!r}")
    if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
        raise InputError("key: expected printable ASCII; a header cannot carry anything else")
    return {
        "base_url": address,
        "headers": {} if key is None else {"Authorization": f"Bearer {key}"},
        "timeout": http.Timeout(timeout, pool=None),
        "limits": http.Limits(max_connections=_CONNECTIONS),
    }


def request(call: Call) -> dict[str, Any]:
    """Return the arguments of httpx2's ``request`` for a call."""
    kinds = {"params": call.query, "headers": call.headers, "data": call.fields, "json": call.json}
    arguments = {kind: value for kind, value in kinds.items() if value}
    if call.files:
        arguments["files"] = [("image", ("image", data, "application/octet-stream")) for data in call.files]
    if call.patient:
        arguments["timeout"] = None
    return {"method": call.method, "url": call.path, **arguments}


def reply(response: httpx2.Response) -> Reply:
    """Return the reply of a response that has been read."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(str(response.url), response.status_code, headers, response.content)


@contextlib.contextmanager
def network_errors(url: str) -> Iterator[None]:
    """Turn httpx2's errors into one line that says why there was no answer.

    Raises:
        ServerError: ``timeout`` or ``unreachable``.
    """
    http = library()
    try:
        yield
    except http.TimeoutException as error:
        raise ServerError(f"{url}: no answer in time ({type(error).__name__})", None, "timeout") from error
    except http.HTTPError as error:
        reason = str(error).strip() or type(error).__name__
        raise ServerError(f"{url}: no answer ({reason}); does a server run there?", None, "unreachable") from error
