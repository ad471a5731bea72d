"""The one way of a request: limits and key, body, route, problem, line of the log.

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
from typing import cast
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from PIL import Image
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sar_infer import __version__
from sar_infer.errors import AliasError, BankError, ClassNameError, InputError, WriteError
from sar_infer.server import openapi
from sar_infer.server.door import Door, door_of
from sar_infer.server.problems import Problem, answer
from sar_infer.server.request import invalid
from sar_infer.server.routes import classes, classify, editing, embeddings, operations, pages, unlabelled
from sar_infer.server.service import Service

_OPEN = frozenset({"/", "/healthz", "/livez", "/readyz", "/metrics", "/ui", "/openapi.json"})
_OPEN_BELOW = "/static/"
_LOCAL_NAMES = ("localhost", socket.gethostname().lower())
_PLAIN_ROUTES = frozenset({classify.PATH, "/v1/embeddings", "/v1/classes"})
"""Paths that metrics and log name even if the request is refused before routing."""
_ENDLESS = ("/v1/reload", "/v1/learn")
"""Paths without a deadline: what they have begun is finished in any case, so the client may as well read the result."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_CODES = {
    AliasError: "conflict", ClassNameError: "bad-class-name", InputError: "invalid-request", BankError: "unavailable",
    WriteError: "not-stored",
}  # fmt: skip
"""The code of each error, of a kind before those that it belongs to."""
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
"""The header ``traceparent`` (W3C Trace Context), whose first group is the id of the trace."""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?")
LINGER_SECONDS = 2.0
_log = logging.getLogger("sar_infer.server")
_access = logging.getLogger("sar_infer.access")


def build_app(service: Service, doors: Sequence[Door] = ()) -> ASGIApp:
    """Return the application for a service with doors; uvicorn is set up to send it HTTP requests only."""
    routes = routed(service, doors)

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        call, start = _Call(service, doors, scope, receive, send), time.perf_counter()
        seconds = None if scope["path"] in _ENDLESS else service.settings.limits.seconds
        try:
            async with asyncio.timeout(seconds) as deadline:
                call.check()
                await call.read()
                if scope["path"] == classify.PATH and scope["method"] == "POST":
                    # past FastAPI: with it an image takes 1.2 % (8 clients) to 1.5 % (32) more CPU (ADR 10)
                    request = Request(scope, call.receive)
                    response = await classify.classify(request, service, classify.query_of(request.query_params))
                    await response(scope, call.receive, call.send)
                else:
                    await routes(scope, call.receive, call.send)
        except asyncio.CancelledError:
            call.task.uncancel()
            if not call.gone:  # uvicorn cancels what still runs when the drain is over
                await call.refuse(Problem("draining", "the server is shutting down", 1))
        except Exception as error:
            late = isinstance(error, TimeoutError) and deadline.expired()
            await call.refuse(Problem("deadline", f"no answer within {seconds:g} s") if late else error)
        finally:
            service.body_bytes -= call.held
            del scope["state"]["cancel"]  # a cycle, which would stay in memory for a while
            call.account(time.perf_counter() - start)

    if not service.settings.origins:
        return handle
    return CORSMiddleware(  # around all else: a preflight, which carries no key, is answered, and pages read refusals
        handle,
        allow_origins=service.settings.origins,
        allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
        allow_headers=("If-Match", "If-None-Match", "X-Request-ID", "Authorization", *(d.key_header for d in doors)),
        expose_headers=("ETag", "Retry-After", "X-Request-ID"),
    )


def routed(service: Service, doors: Sequence[Door] = ()) -> FastAPI:
    """Return the routes of a service and of its doors.

    Everything that a first request would import or read is loaded now: later all file descriptors may be in use.
    """
    Image.preinit()
    app = FastAPI(
        title="sar-clip",
        version=__version__,
        description="Classifies images by class names: those of a bundle's bank, and any that you add.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    routers = [each.router for each in (classify, classes, editing, unlabelled, embeddings, operations)]
    routers += [door.router for door in doors]
    if service.settings.pages:
        routers.append(pages.router(keyed=service.settings.key is not None))
    for router in routers:
        app.include_router(router)
    app.state.routes = [*app.routes, *(route for router in routers for route in router.routes)]
    app.middleware_stack = AsyncExitStackMiddleware(app.router)  # others would answer exceptions
    openapi.complete(app)
    for route in app.routes:  # FastAPI completes a route when it is first matched
        route.matches({"type": "http", "method": "GET", "path": "", "root_path": "", "headers": []})
    return app


class _Call:
    """One request, from its headers to its line in the log."""

    def __init__(self, service: Service, doors: Sequence[Door], scope: Scope, receive: Receive, send: Send) -> None:
        self._service, self._scope = service, scope
        self._door = door_of(scope["path"], doors)
        self._client_receive, self._client_send = receive, send
        self._headers = Headers(scope=scope)
        request_id = self._headers.get("x-request-id", "")
        self._id = request_id if _REQUEST_ID.fullmatch(request_id) else secrets.token_hex(8)
        scope.setdefault("state", {}).update(request_id=self._id, cancel=self._cancel)
        self._length = int(self._headers.get("content-length", 0))
        self._arrived = "content-length" not in self._headers and "transfer-encoding" not in self._headers
        self._body = b""
        self._status = 0
        self.held = 0
        self.gone = False
        self.task = cast("asyncio.Task[None]", asyncio.current_task())

    def check(self) -> None:
        """Refuse what can be refused before the body is read."""
        path, service, headers, door = self._scope["path"], self._service, self._headers, self._door
        host = _host(headers)
        if path not in _OPEN and not path.startswith(_OPEN_BELOW) and not (door and door.open_paths.match(path)):
            if service.settings.key is None:
                _check_host(host, service.settings.hosts)
            else:
                _check_key(headers, service.settings.key, "Authorization" if door is None else door.key_header)
        coding = ", ".join(headers.getlist("transfer-encoding")).strip()
        if coding.lower() not in ("", "chunked"):
            raise Problem("not-implemented", f"Transfer-Encoding: expected chunked, got {coding!r:.40}")
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if not self._arrived and encoding not in ("identity", ""):
            raise Problem("unsupported-media-type", f"expected a body that is not compressed, got {encoding!r:.40}")
        if not self._arrived and "upgrade" in headers and "upgrade" in headers.get("connection", "").lower():
            problem = Problem("bad-request", "this is HTTP/1.1; send the body without the header Upgrade")
            problem.headers["Connection"] = "close"  # after that header no body is read
            raise problem
        self._check_size(self._length)
        takes_images = self._scope["method"] == "POST" and (door is not None or path == classify.PATH)
        if service.images.full and takes_images:
            raise service.images.refusal()

    def _check_size(self, length: int) -> None:
        limit = self._service.settings.limits.body_bytes
        if length > limit:
            text = f"at most {limit / 2**20:.3g} MiB a request; scale the image down or send fewer"
            raise Problem("body-too-large", text)

    async def read(self) -> None:
        """Read the body, if there is one; it counts while the request lasts."""
        if self._arrived:
            return
        service, seconds = self._service, self._service.settings.limits.body_seconds
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(seconds):
                while not self._arrived:
                    chunk = await self._next()
                    chunks.append(chunk)
                    self.held += len(chunk)
                    service.body_bytes += len(chunk)
                    self._check_size(self.held)
                    if service.body_bytes > service.most_body_bytes:
                        raise service.images.refusal()
        except TimeoutError:
            raise Problem("body-timeout", f"the body did not arrive within {seconds:g} s") from None
        self._body = b"".join(chunks)

    async def _next(self) -> bytes:
        message = await self._client_receive()
        if message["type"] == "http.disconnect":
            self.gone = self._arrived = True
            raise asyncio.CancelledError
        self._arrived = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    def _cancel(self) -> None:
        """Cancel the request, as its client has left; ``connection`` calls this, and no task has to watch for it."""
        if not self._status:
            self.gone = True
            self.task.cancel()

    async def receive(self) -> Message:
        """Return the body and let go of it; nobody asks twice, as a client that leaves cancels its request."""
        body, self._body = self._body, b""
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Send part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            if not self._arrived or self._service.draining:  # so that the next request goes to another server
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

    async def refuse(self, error: Exception) -> None:
        """Answer with the problem of an exception; an unexpected exception is logged."""
        problem = _problem(error, self._scope)
        if problem is None:
            _log.error("request %s failed", self._id, exc_info=error)
            problem = Problem("internal", f"the server failed; its log has request {self._id}")
        if self._status:
            _log.error("%s after the answer had begun: %s", problem.code, problem.detail)
            return
        if not self._arrived and 0 < self._length <= self._service.settings.limits.body_bytes:
            await self._linger()  # so that the connection can be kept
        shape = None if self._door is None else self._door.error
        await answer(problem, self._scope, shape)(self._scope, self.receive, self.send)

    def account(self, seconds: float) -> None:
        """Count the request, and write its line into the log."""
        path, state, metrics = self._scope["path"], self._scope["state"], self._service.metrics
        unrouted = path if path in _PLAIN_ROUTES else self._door.name if self._door else "unmatched"
        route = getattr(self._scope.get("route"), "path", unrouted)
        status = self._status or 499
        metrics.requests.labels(route, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        reason = state.get("problem") or ("cancelled" if self.gone else None)
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
        if banks := parse_qs(self._scope["query_string"].decode("latin-1")).get("bank"):
            more["bank"] = ",".join(banks).encode("ascii", "backslashreplace").decode()
        if trace := _TRACE.fullmatch(self._headers.get("traceparent", "")):
            more["trace_id"] = trace[1]
        text = "".join(f" {key}={value}" for key, value in more.items())
        line = "{method} {path} {status} {milliseconds:.1f} ms {request_id} {client}"
        _access.info("%s%s", line.format(**fields, milliseconds=seconds * 1000), text, extra={"fields": fields | more})


def _host(headers: Headers) -> str:
    """Return the one header Host (RFC 9112, 3.2), or nothing: names and ports only, as proxies read others differently.

    Raises:
        Problem: ``bad-request``.
    """
    hosts = headers.getlist("host")
    if len(hosts) > 1 or not _HOST.fullmatch(host := "".join(hosts)):
        raise Problem("bad-request", f"expected one header Host, NAME or NAME:PORT, got {', '.join(hosts)!r:.80}")
    return host


def _check_host(host: str, names: tuple[str, ...]) -> None:
    """Refuse names that are not this server's: a page elsewhere can give its own name this server's address.

    Its scripts could then read answers, which the browser takes for those of the page's own site. An address in
    place of a name cannot be turned like that.
    """
    with contextlib.suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        if not ("*" in names or name in (*_LOCAL_NAMES, *names)):
            ipaddress.ip_address(name)
        return
    raise Problem(
        "misdirected",
        f"this server has no key, so it answers only to its own names, not to {host!r:.80}; start it with "
        "--allowed-host NAME, or with a key",
    )


def _check_key(headers: Headers, keys: str, key_header: str) -> None:
    """Refuse a request without one of the keys; the time it takes does not depend on them.

    A door's own header has the key itself, ``Authorization`` has ``Bearer`` before it.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if key_header != "Authorization" and key_header in headers:
        scheme, token = "bearer", headers[key_header]
    sent = hashlib.sha256(token.strip().encode()).digest()
    right = [hmac.compare_digest(sent, hashlib.sha256(key.encode()).digest()) for key in keys.split("\n")]
    if scheme.lower() != "bearer" or not any(right):
        wrong = f"the key in the header {key_header} is not this server's; " if token.strip() else ""
        form = "Authorization: Bearer KEY" if key_header == "Authorization" else f"{key_header}: KEY"
        raise Problem("unauthorised", f"{wrong}expected the header '{form}' with this server's key")


def _problem(error: Exception, scope: Scope) -> Problem | None:
    """Return the problem of an exception; None if it is unexpected."""
    if code := next((code for kind, code in _CODES.items() if isinstance(error, kind)), None):
        return Problem(code, str(error))
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return invalid(error.errors(), BaseModel)
        case HTTPException(status_code=405):
            # each method of a path may have a route of its own
            routes = [route for route in scope["app"].state.routes if route.matches(scope)[0] is not Match.NONE]
            *others, last = methods = sorted({m for route in routes for m in getattr(route, "methods", None) or ()})
            expected = f"use {', '.join(others)} or {last}" if others else f"use {last}"
            problem = Problem("method-not-allowed", f"{scope['method']} {scope['path']}: {expected}")
            problem.headers["Allow"] = ", ".join(methods)
            return problem
        case HTTPException(status_code=404):
            return Problem("not-found", f"{scope['method']} {scope['path']}: {error.detail}")
    return None
