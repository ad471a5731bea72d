"""The pages for browsers: ``/ui`` to try the classifier, ``/docs`` to read the API, and their static files.

All files come from the package and stay in memory after their first use. Every answer has a strict content security
policy: nothing from other hosts, nothing inline. Links are relative, so that the pages also work below a path prefix.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

_CONTENT_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_KEYED = "ui-keyed.html"
"""The page of a server with a key: it asks for the key before anything is refused."""
SECURITY_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    content_type: str
    etag: str


@functools.cache
def files() -> dict[str, _File]:
    """Return all files of the pages by name; a name from a request is only looked up here, never on disk."""
    files: dict[str, _File] = {}
    static = (resources.files("sar_infer.server") / "static").iterdir()
    for entry in (*static, resources.files("sar_infer.pages") / "base.css"):
        content_type = _CONTENT_TYPES.get(entry.name.rpartition(".")[2])
        if content_type is not None and entry.is_file():
            files[entry.name] = _file(entry.read_bytes(), content_type)
    content = files["ui.html"].content.replace(b"<html ", b"<html data-key ", 1)
    return {**files, _KEYED: _file(content, _CONTENT_TYPES["html"])}


def _file(content: bytes, content_type: str) -> _File:
    return _File(content, content_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _answer(request: Request, name: str) -> Response:
    file = files().get(name)
    if file is None:
        raise HTTPException(404)
    # Browsers ask every time, so that they never show the pages of an older server; mostly the answer has no body.
    headers = {"Cache-Control": "no-cache", "ETag": file.etag, **SECURITY_HEADERS}
    etags = {tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")}
    if file.etag in etags or "*" in etags:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.content_type, headers=headers)


def router(*, keyed: bool) -> APIRouter:
    """Return the routes of the pages.

    Args:
        keyed: The server has a key, which ``/ui`` asks for before anything is refused.
    """

    async def start(request: Request) -> Response:  # noqa: ARG001 - given by the router
        return RedirectResponse("ui", headers=SECURITY_HEADERS)

    async def ui(request: Request) -> Response:
        return _answer(request, _KEYED if keyed else "ui.html")

    async def docs(request: Request) -> Response:
        return _answer(request, "docs.html")

    async def static(request: Request) -> Response:
        return _answer(request, request.path_params["name"])

    made = APIRouter(include_in_schema=False)
    for path, endpoint in {"/": start, "/ui": ui, "/docs": docs, "/static/{name}": static}.items():
        made.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
    return made
