"""httpx2, as both kinds of client use it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sar_infer.client.answers import Reply
from sar_infer.client.exchange import Call
from sar_infer.errors import InputError, ServerError

if TYPE_CHECKING:
    import httpx2

_CONNECTIONS = 64


def library() -> Any:
    """The module httpx2.

    Raises:
        InputError: it is not installed.
    """
    try:
        import httpx2
    except ModuleNotFoundError:
        raise InputError("the client needs httpx2: pip install 'sar-clip[client]'") from None
    return httpx2


def settings(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """What a client of httpx2 is made with.

    Raises:
        InputError: no URL of a server, or a key that no header can carry.
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
    """A call as httpx2's ``request`` takes it."""
    kinds = {"params": call.query, "headers": call.headers, "data": call.fields, "json": call.json}
    given = {kind: value for kind, value in kinds.items() if value}
    if call.files:
        given["files"] = [("image", ("image", data, "application/octet-stream")) for data in call.files]
    return {"method": call.method, "url": call.path, **given}


def reply(response: httpx2.Response) -> Reply:
    """An answer, read to its end."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(str(response.url), response.status_code, headers, response.content)


@contextlib.contextmanager
def told(url: str) -> Iterator[None]:
    """Tell in one line why there was no answer.

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
