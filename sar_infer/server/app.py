"""The FastAPI application: its routes, and the answers to exceptions.

Handlers are coroutines, because FastAPI would run plain functions in threads.
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from sar_infer import __version__
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.server.http import openapi
from sar_infer.server.http.middleware import Middleware
from sar_infer.server.http.request import invalid
from sar_infer.server.oip import HEADER_LENGTH
from sar_infer.server.problems import Problem, answer
from sar_infer.server.routes import classes, classify, embeddings, operations, pages, unlabelled, v2, zero_shot
from sar_infer.server.service import Service

_REFUSALS = (Problem, InputError, BankError)
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 415: "unsupported-media-type", 400: "bad-request"}


def build_app(service: Service) -> ASGIApp:
    """Return the application for a service, inside its middleware.

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
    modules = (classify, classes, unlabelled, embeddings, zero_shot, v2, operations)
    routers = [module.router for module in modules]
    if service.settings.pages:
        routers.append(pages.router(keyed=service.settings.key is not None))
        pages.files()
    for router in routers:
        app.include_router(router)
    app.state.routes = [*app.routes, *(route for router in routers for route in router.routes)]
    for kind in (*_REFUSALS, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answered)
    openapi.complete(app)
    for route in app.routes:  # FastAPI completes a route when it is first matched
        route.matches({"type": "http", "method": "GET", "path": "", "root_path": "", "headers": []})
    return _cors(Middleware(_Direct(app, service), service), service.settings.origins)


def _cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Let pages of these origins read answers; with none, the app is as it was.

    It is around all else, so that a preflight, which carries no key, is answered, and pages can read refusals too.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
        allow_headers=("Authorization", "If-Match", "If-None-Match", "X-Request-ID", HEADER_LENGTH),
        expose_headers=("ETag", "Retry-After", "X-Request-ID", HEADER_LENGTH),
    )


class _Direct:
    """Calls ``classify`` for a request without options; any other goes to the app.

    FastAPI's layers and its parsing of the query would take more of this process's time than ranking does.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a fault is left to the middleware."""
        if scope["path"] != classify.PATH or scope["method"] != "POST" or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await classify.classify(request, self._service, classify.NO_OPTIONS)
        except _REFUSALS as error:
            response = await _answered(request, error)
        await response(scope, receive, send)


async def _answered(request: Request, error: Exception) -> Response:
    """Answer an exception by the problem that it stands for; ``middleware`` logs one that nobody foresaw."""
    match error:
        case Problem():
            problem = error
        case ClassNameError():
            problem = Problem("bad-class-name", str(error))
        case InputError():
            problem = Problem("invalid-request", str(error))
        case BankError():
            problem = Problem("unavailable", str(error))
        case RequestValidationError():
            problem = invalid(error.errors(), classify.ClassifyOptions)  # no other query refuses fields
        case HTTPException():
            problem = _routing_problem(request, error)
        case _:
            problem = Problem("internal", f"the server failed; its log has request {request.state.request_id}")
    return answer(problem, request.scope)


def _routing_problem(request: Request, error: HTTPException) -> Problem:
    """Return the problem of Starlette's own exceptions: no such route, no such method."""
    headers, detail = dict(error.headers or {}), error.detail
    if error.status_code == 405:
        *others, last = methods = _methods(request)
        headers["Allow"] = ", ".join(methods)
        detail = f"use {', '.join(others)} or {last}" if others else f"use {last}"
    problem = Problem(_BY_STATUS.get(error.status_code, "internal"), f"{request.method} {request.url.path}: {detail}")
    problem.headers.update(headers)
    return problem


def _methods(request: Request) -> list[str]:
    """Return the methods of a path, of which each may have a route of its own."""
    routes = [route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})
