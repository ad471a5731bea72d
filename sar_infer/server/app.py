"""The FastAPI application: its routes, and the problems that exceptions stand for.

Handlers are coroutines, because FastAPI would run plain functions in threads.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from sar_infer import __version__
from sar_infer.errors import BankError, ClassNameError, InputError, WriteError
from sar_infer.server.http import middleware, openapi
from sar_infer.server.http.request import invalid
from sar_infer.server.oip import HEADER_LENGTH
from sar_infer.server.problems import Problem
from sar_infer.server.routes import classes, classify, embeddings, operations, pages, unlabelled, v2, zero_shot
from sar_infer.server.service import Service

_REFUSALS = (BankError, HTTPException, InputError, RequestValidationError, WriteError)


def routed(service: Service) -> FastAPI:
    """Return the routes of a service, without middleware.

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
    app.middleware_stack = AsyncExitStackMiddleware(app.router)  # others would answer exceptions
    openapi.complete(app)
    for route in app.routes:  # FastAPI completes a route when it is first matched
        route.matches({"type": "http", "method": "GET", "path": "", "root_path": "", "headers": []})
    return app


def build_app(service: Service) -> ASGIApp:
    """Return the application for a service, inside its middleware."""
    answering = middleware.around(_past(routed(service), service), service)
    if not service.settings.origins:
        return answering
    return (
        CORSMiddleware(  # around all else: a preflight, which carries no key, is answered, and pages read refusals too
            answering,
            allow_origins=service.settings.origins,
            allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
            allow_headers=("Authorization", "If-Match", "If-None-Match", "X-Request-ID", HEADER_LENGTH),
            expose_headers=("ETag", "Retry-After", "X-Request-ID", HEADER_LENGTH),
        )
    )


def _past(app: FastAPI, service: Service) -> ASGIApp:
    """Return what calls the app; every refusal leaves it as a ``Problem``.

    A call of ``classify`` without options goes past the app, which takes 1.2 to 1.5 % of an image's CPU (decision 10).
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] == classify.PATH and scope["method"] == "POST" and not scope["query_string"]:
                response = await classify.classify(Request(scope, receive), service, classify.NO_OPTIONS)
                await response(scope, receive, send)
            else:
                await app(scope, receive, send)
        except _REFUSALS as error:
            raise _problem(error, scope) from None

    return answer


def _problem(error: Exception, scope: Scope) -> Problem:
    """Return the problem that an exception stands for."""
    match error:
        case ClassNameError():
            return Problem("bad-class-name", str(error))
        case InputError():
            return Problem("invalid-request", str(error))
        case BankError():
            return Problem("unavailable", str(error))
        case WriteError():
            return Problem("not-stored", str(error))
        case RequestValidationError():
            return invalid(error.errors(), classify.ClassifyOptions)  # no other query refuses fields
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
    raise error
