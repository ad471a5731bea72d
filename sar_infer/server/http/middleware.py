"""The middleware around every request: key, limits of size and time, request id, metrics, log line, errors.

The body is read here, counted as it arrives, and passed on as a whole. A request is cancelled if its client
disconnects. If the answer is ready before the whole body has arrived, the rest is read for a while first, so that the
client gets to see the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import socket
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sar_infer.server.problems import Problem, answer
from sar_infer.server.service import Service

_OPEN = frozenset({"/", "/healthz", "/livez", "/readyz", "/metrics", "/ui", "/docs", "/openapi.json"})
_OPEN_BELOW = ("/static/", "/v2/health/")
_LOCAL_NAMES = ("localhost", socket.gethostname().lower())
_IMAGE_ROUTES = ("/v1/classify", "/v1/zero-shot", "/v2/models")
_PLAIN_ROUTES = frozenset({"/v1/classify", "/v1/embeddings", "/v1/zero-shot-image-classification", "/v1/classes"})
"""Paths that metrics and log name even if the request is refused before routing."""
_ENDLESS = ("/v1/reload", "/v1/learn")
"""Paths without a deadline: what they have begun is finished in any case, so the client may as well read the result."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
"""The header ``traceparent`` (W3C Trace Context), whose first group is the id of the trace."""
LINGER_SECONDS = 2.0
_log = logging.getLogger("sar_infer.server")
_access = logging.getLogger("sar_infer.access")


def around(app: ASGIApp, service: Service) -> ASGIApp:
    """Return the application inside the middleware; uvicorn is set up to send it HTTP requests alone."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await _Handler(app, service, scope, receive, send).run()

    return handle


class _Handler:
    """One request, from its headers to its line in the log."""

    def __init__(self, app: ASGIApp, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._service, self._scope = app, service, scope
        self._client_receive, self._client_send = receive, send
        self._headers = Headers(scope=scope)
        request_id = self._headers.get("x-request-id", "")
        self._id = request_id if _REQUEST_ID.fullmatch(request_id) else secrets.token_hex(8)
        scope.setdefault("state", {}).update(request_id=self._id, cancel=self._cancel)
        self._arrived = "content-length" not in self._headers and "transfer-encoding" not in self._headers
        self._body = b""
        self._held = 0
        self._status = 0
        self._gone = False
        self._task = asyncio.current_task()

    async def run(self) -> None:
        start = time.perf_counter()
        seconds = None if self._scope["path"] in _ENDLESS else self._service.settings.limits.seconds
        try:
            async with asyncio.timeout(seconds) as deadline:
                self._check()
                if not self._arrived:
                    self._body = await self._read()
                await self._app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            if self._task is not None:
                self._task.uncancel()
            if not self._gone:  # uvicorn cancels what still runs when the drain is over
                await self._refuse(Problem("draining", "the server is shutting down", 1))
        except Exception as error:
            late = isinstance(error, TimeoutError) and deadline.expired()
            await self._refuse(Problem("deadline", f"no answer within {seconds:g} s") if late else error)
        finally:
            self._service.body_bytes -= self._held
            del self._scope["state"]["cancel"]  # a cycle, which would stay in memory for a while
            self._account(time.perf_counter() - start)

    def _check(self) -> None:
        """Refuse what can be refused before the body is read."""
        path, service, headers = self._scope["path"], self._service, self._headers
        if path not in _OPEN and not path.startswith(_OPEN_BELOW):
            if service.settings.key is None:
                _check_host(headers.get("host", ""), service.settings.hosts)
            else:
                _check_key(headers.get("authorization", ""), service.settings.key)
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if not self._arrived and encoding not in ("identity", ""):
            raise Problem("unsupported-media-type", f"expected a body that is not compressed, got {encoding!r:.40}")
        if not self._arrived and "upgrade" in headers and "upgrade" in headers.get("connection", "").lower():
            problem = Problem("bad-request", "this is HTTP/1.1; send the body without the header Upgrade")
            problem.headers["Connection"] = "close"  # after that header no body is read
            raise problem
        limit, length = service.settings.limits.body_bytes, headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)
        if service.images.full and path.startswith(_IMAGE_ROUTES) and self._scope["method"] == "POST":
            raise service.images.refusal()

    async def _read(self) -> bytes:
        service, limits = self._service, self._service.settings.limits
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(limits.body_seconds):
                while not self._arrived:
                    chunk = await self._next()
                    chunks.append(chunk)
                    self._held += len(chunk)
                    service.body_bytes += len(chunk)
                    if self._held > limits.body_bytes:
                        raise _too_large(limits.body_bytes)
                    if service.body_bytes > service.most_body_bytes:
                        raise service.images.refusal()
        except TimeoutError:
            raise Problem("body-timeout", f"the body did not arrive within {limits.body_seconds:g} s") from None
        return b"".join(chunks)

    async def _next(self) -> bytes:
        """Return the next chunk of the body."""
        message = await self._client_receive()
        if message["type"] == "http.disconnect":
            self._gone = self._arrived = True
            raise asyncio.CancelledError
        self._arrived = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    def _cancel(self) -> None:
        """Cancel the request, as its client has left; ``http.connection`` calls this."""
        if self._task is not None and not self._status:
            self._gone = True
            self._task.cancel()

    async def _receive(self) -> Message:
        """Return the body and let go of it; nobody asks twice, as a client that leaves cancels its request."""
        body, self._body = self._body, b""
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            if not self._arrived:
                headers["Connection"] = "close"
        elif not self._arrived and not message.get("more_body", False):
            await self._client_send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body"}
        await self._client_send(message)

    async def _linger(self) -> None:
        """Read and drop the rest of the body, for a while."""
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._arrived:
                    await self._next()

    async def _refuse(self, error: Exception) -> None:
        """Answer with a problem; an error that nobody foresaw is logged."""
        if not isinstance(error, Problem):
            _log.error("request %s failed", self._id, exc_info=error)
            error = Problem("internal", f"the server failed; its log has request {self._id}")
        if self._status:
            _log.error("%s after the answer had begun: %s", error.code, error.detail)
            return
        length = self._headers.get("content-length", "")
        if not self._arrived and length.isdecimal() and int(length) <= self._service.settings.limits.body_bytes:
            await self._linger()  # so that the connection can be kept
        await answer(error, self._scope)(self._scope, self._receive, self._send)

    def _account(self, seconds: float) -> None:
        path, state, metrics = self._scope["path"], self._scope["state"], self._service.metrics
        route = getattr(self._scope.get("route"), "path", path if path in _PLAIN_ROUTES else "unmatched")
        status = self._status or 499
        metrics.requests.labels(route, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        reason = state.get("problem") or ("cancelled" if self._gone else None)
        if reason:
            metrics.rejected.labels(reason).inc()
        if _access.disabled:
            return
        fields = {
            "method": self._scope["method"],
            "path": self._scope.get("raw_path", b"").decode("ascii", "backslashreplace"),
            "status": status,
            "seconds": round(seconds, 4),
            "request_id": self._id,
            "client": (self._scope.get("client") or ("-",))[0],
        }
        more = {**({"code": reason} if reason else {}), **state.get("logged", {})}
        if trace := _TRACE.fullmatch(self._headers.get("traceparent", "")):
            more["trace_id"] = trace[1]
        text = "".join(f" {key}={value}" for key, value in more.items())
        line = "{method} {path} {status} {milliseconds:.1f} ms {request_id} {client}"
        _access.info("%s%s", line.format(**fields, milliseconds=seconds * 1000), text, extra={"fields": fields | more})


def _check_host(host: str, names: Sequence[str]) -> None:
    """Refuse names that are not this server's: a page elsewhere can give its own name this server's address.

    Its scripts could then read answers, which the browser takes for those of the page's own site. An address in
    place of a name cannot be turned like that.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if "*" in names or name in (*_LOCAL_NAMES, *names):
        return
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return
    raise Problem(
        "misdirected",
        f"this server has no key, so it answers only to its own names, not to {host!r:.80}; start it with "
        "--allowed-host NAME, or with a key",
    )


def _check_key(authorization: str, keys: str) -> None:
    """Refuse a request without one of the keys; the time it takes does not depend on them."""

    def digest(text: str) -> bytes:
        return hashlib.sha256(text.encode()).digest()

    scheme, _, token = authorization.partition(" ")
    right = sum(hmac.compare_digest(digest(token.strip()), digest(key)) for key in keys.split("\n"))
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem("unauthorised", "expected the header 'Authorization: Bearer KEY' with this server's key")
    if not right:
        problem = Problem("unauthorised", "the key in the header Authorization is not this server's")
        problem.title = "The key is wrong"
        raise problem


def _too_large(limit: int) -> Problem:
    return Problem("body-too-large", f"at most {limit / 2**20:.3g} MiB a request; scale the image down or send fewer")
