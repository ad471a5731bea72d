"""The page of ``sar-label``: questions as JSON, photos by their numbers, and the static files.

It only wraps a `Labelling`. A token in the address becomes a cookie, which each further request must have.
"""

from __future__ import annotations

import hmac
import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sar_infer.errors import InputError, SarInferError
from sar_infer.images.thumbnail import short_name, small_jpeg
from sar_infer.labelling import Guess, Labelling
from sar_infer.web import SECURITY_HEADERS

_TYPES = {"css": "text/css; charset=utf-8", "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_SIDES = {"small": 240, "large": 1024}
"""Pixels of the longer side of a photo as the page shows it."""
_CACHED, _PART, _BODY = 512, 60, 2**20
"""Small pictures in memory, photos of a part of a list, bytes of a request."""


def application(heap: Labelling, bank: str, port: int, token: str) -> ASGIApp:
    """Return the application of the page.

    Args:
        heap: What it asks about.
        bank: The bank file, as the next commands of the page name it.
        port: Where it listens on this machine; requests must name this host and port.
        token: Secret of the address.
    """
    page = _Page(heap, bank)

    def changing(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            body = await _body(request)
            return JSONResponse(await run_in_threadpool(lambda: change(body) | page.state()))

        return endpoint

    def reading(read: Callable[[Mapping[str, str]], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return JSONResponse(await run_in_threadpool(read, request.query_params))

        return endpoint

    async def get_photo(request: Request) -> Response:
        number, side = request.path_params["number"], request.query_params.get("side", "small")
        jpeg = await run_in_threadpool(page.picture, number, side)
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    changes = {"answer": page.answer, "skip": page.skip, "undo": page.undo, "save": page.save}
    reads = {"state": lambda _: page.state(), "names": lambda _: heap.names, "photos": page.listed}
    routes = [
        *(Route(f"/{name}", changing(change), methods=["POST"]) for name, change in changes.items()),
        *(Route(f"/{name}", reading(read)) for name, read in reads.items()),
        Route("/photos/{number:int}", get_photo),
        *_static(),
    ]
    app = Starlette(routes=routes, exception_handlers={SarInferError: _refused})
    return _guarded(app, port, token)


class _Page:
    """Content and changes of the page, as JSON; photos are numbers."""

    def __init__(self, heap: Labelling, bank: str) -> None:
        self._heap, self._bank = heap, shlex.quote(bank)
        self._numbers = {photo: number for number, photo in enumerate(heap.photos)}
        self._small = lru_cache(_CACHED)(self._read)

    def state(self) -> dict[str, Any]:
        """Return all that the page shows beside a list of photos."""
        heap = self._heap
        question, (done, total) = heap.ask(), heap.progress
        asked = None
        if question is not None:  # whether it is held out stays here
            photos, proposals = self._photos(question.photos), question.proposals
            asked = {"kind": question.kind, "photos": photos, "proposals": proposals}
        commands = ("sar-classify PHOTO", "sar-serve", "sar-bundle onnx")
        return {
            "question": asked,
            "done": done,
            "total": total,
            "estimate": vars(heap.estimate()),
            "curve": [vars(one) for one in heap.curve()],
            "classes": heap.classes(),
            "confused": [
                {"class": true, "predicted": predicted, "photos": self._photos(names)}
                for true, predicted, names in heap.confusions()[:5]
            ],
            "unreadable": [{"name": short_name(name), "reason": why} for name, why in heap.unreadable.items()],
            "next": [f"{command} --bank {self._bank}" for command in commands],
        }

    def listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a part of the photos of a class, of none, or that are open."""
        if query.get("of") == "open":
            guesses = self._heap.open()
        else:
            guesses = self._heap.guesses(query.get("name") if query.get("of") == "class" else None)
        unsure, start = query.get("order") == "unsure", _count(query.get("start", "0"))
        ordered = sorted(guesses, key=lambda guess: guess.probability if unsure else -guess.probability)
        return {"total": len(guesses), "photos": [self._guess(one) for one in ordered[start : start + _PART]]}

    def picture(self, number: int, side: str) -> bytes:
        """Return a photo as a JPEG.

        Raises:
            HTTPException: There is no such photo, or it cannot be read.
        """
        if side not in _SIDES or number >= len(self._numbers):
            raise HTTPException(404)
        jpeg = (self._small if side == "small" else self._read)(number, _SIDES[side])
        if jpeg is None:
            raise HTTPException(404)
        return jpeg

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Commit an answer."""
        labels = body.get("labels")
        if not isinstance(labels, dict) or not all(name is None or isinstance(name, str) for name in labels.values()):
            raise InputError('expected {"labels": {NUMBER: CLASS or null}}')
        self._heap.answer({self._chosen(number): name for number, name in labels.items()})
        return {}

    def skip(self, body: dict[str, Any]) -> dict[str, Any]:
        """Put photos behind all others."""
        if not isinstance(skipped := body.get("photos"), list):
            raise InputError('expected {"photos": [NUMBER, …]}')
        self._heap.skip(*map(self._chosen, skipped))
        return {}

    def undo(self, _: dict[str, Any]) -> dict[str, Any]:
        """Take back the latest answer or skip."""
        return {"undone": len(self._heap.undo())}

    def save(self, _: dict[str, Any]) -> dict[str, Any]:
        """Write the bank."""
        return {"saved": str(self._heap.save())}

    def _read(self, number: int, side: int) -> bytes | None:
        return small_jpeg(self._heap.photos[number], side)

    def _photos(self, names: Iterable[str]) -> list[dict[str, Any]]:
        return [{"number": self._numbers[name], "name": short_name(name)} for name in names]

    def _guess(self, guess: Guess) -> dict[str, Any]:
        (photo,) = self._photos([guess.photo])
        return photo | {"class": guess.name, "probability": guess.probability, "answered": guess.answered}

    def _chosen(self, number: object) -> str:
        if not isinstance(number, str | int) or isinstance(number, bool) or _count(number) >= len(self._numbers):
            raise InputError(f"expected the number of a photo of this heap, got {number!r:.40}")
        return self._heap.photos[_count(number)]


def _static() -> list[Route]:
    folder = resources.files("sar_infer.labelling") / "static"
    entries = (*folder.iterdir(), resources.files("sar_infer.evaluation") / "base.css")
    files = {one.name: one.read_bytes() for one in entries if one.name.rpartition(".")[2] in _TYPES}

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "label.html")
        if name not in files:
            raise HTTPException(404)
        return Response(files[name], media_type=_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": "no-cache"})

    return [Route("/", file), Route("/static/{name}", file)]


def _guarded(app: ASGIApp, port: int, token: str) -> ASGIApp:
    """Return an application that only serves who knows the token, and only pages of its own."""
    hosts, cookie = (f"127.0.0.1:{port}", f"localhost:{port}"), f"sar-label-{port}"

    def right(text: str) -> bool:
        return hmac.compare_digest(text.encode(), token.encode())

    def refusal(request: Request) -> Response | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if host not in hosts:  # another site's name can be given this machine's address
            return Response(f"this page is at http://{hosts[0]} only", 421)
        if origin not in (None, f"http://{host}"):
            return Response("requests of other pages are refused", 403)
        if request.url.path == "/" and right(request.query_params.get("token", "")):
            answer = RedirectResponse("/", 303)  # the address without the token stays in the history
            answer.set_cookie(cookie, token, httponly=True, samesite="strict")
            return answer
        if not right(request.cookies.get(cookie, "")):
            return Response("open the address that sar-label has printed, with its token", 403)
        return None

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                fixed = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *fixed]}
            await send(message)

        await (refusal(Request(scope)) or app)(scope, receive, send_guarded)

    return guarded


async def _body(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises:
        InputError: It is no JSON object, or too large.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _BODY:
            raise InputError(f"expected at most {_BODY:,} bytes")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if request.headers.get("content-type") != "application/json" or not isinstance(body, dict):
        raise InputError("expected a JSON object as application/json")
    return body


def _count(text: str | int) -> int:
    if not (str(text).isascii() and str(text).isdecimal() and len(str(text)) < 10):
        raise InputError(f"expected a number, got {text!r:.40}")
    return int(text)


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 400 if isinstance(error, InputError) else 500)
