"""The page for browsers, ``/ui``, to try the classifier, and its static files.

All files come from the package and stay in memory. Every answer has a strict content security policy: nothing from
other hosts, nothing inline. Links are relative, so that the page also works below a path prefix.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sar_infer.server.request import is_current
from sar_infer.web import SECURITY_HEADERS

_CONTENT_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def router(*, keyed: bool) -> APIRouter:
    """Return the routes of the page; a name from a request is only looked up here, never on disk.

    Args:
        keyed: The server has a key, which ``/ui`` asks for before anything is refused.
    """
    static = (resources.files("sar_infer.server") / "static").iterdir()
    entries = (*static, resources.files("sar_infer.evaluation") / "base.css")
    files = {entry.name: entry.read_bytes() for entry in entries if entry.name.rpartition(".")[2] in _CONTENT_TYPES}
    if keyed:
        files["ui.html"] = files["ui.html"].replace(b"<html ", b"<html data-key ", 1)
    etags = {name: f'"{hashlib.sha256(content).hexdigest()[:32]}"' for name, content in files.items()}

    async def start(request: Request) -> Response:  # noqa: ARG001 - given by the router
        return RedirectResponse("ui", headers=SECURITY_HEADERS)

    async def file(request: Request) -> Response:
        name = request.path_params.get("name") or request.scope["path"].strip("/") + ".html"
        if name not in files:
            raise HTTPException(404)
        # Browsers ask every time, so that they never show the page of an older server; mostly the answer has no body.
        headers = {"Cache-Control": "no-cache", "ETag": etags[name], **SECURITY_HEADERS}
        if is_current(etags[name], request.headers.get("If-None-Match")):
            return Response(status_code=304, headers=headers)
        return Response(files[name], media_type=_CONTENT_TYPES[name.rpartition(".")[2]], headers=headers)

    routes = APIRouter(include_in_schema=False)
    for path, endpoint in {"/": start, "/ui": file, "/static/{name}": file}.items():
        routes.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
    return routes
