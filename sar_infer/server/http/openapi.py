"""Pieces of the OpenAPI document that FastAPI does not make by itself."""

from __future__ import annotations

from typing import Any

import pydantic.dataclasses  # noqa: F401 - pydantic would import it for the first document
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sar_infer.server.http.models import ErrorAnswer, ProblemAnswer

BINARY = {"type": "string", "format": "binary"}
_REFERENCE = "#/components/schemas/{model}"
_DESCRIPTIONS = {
    400: "Malformed.",
    401: "A key is needed.",
    403: "This server takes no changes.",
    404: "There is no such thing.",
    405: "Method not allowed.",
    408: "The body did not arrive in time.",
    409: "The change does not fit.",
    412: "Changed in the meantime.",
    413: "Body, number of images, or an image too large.",
    415: "Not a content type or image format that is taken.",
    422: "Well formed, but cannot be used.",
    429: "Too busy; Retry-After says when to try again.",
    500: "A fault of the server.",
    503: "Not ready, or shutting down.",
    504: "Took too long.",
    507: "The change cannot be written.",
}
_FRAME = (400, 408, 413, 415, 429, 500, 504)
_referenced: dict[str, type[BaseModel]] = {"ProblemAnswer": ProblemAnswer}


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """A reference to a model's schema, which then stands among the document's components."""
    _referenced[model.__name__] = model
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def problems(*statuses: int, model: type[BaseModel] = ProblemAnswer) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that are problems, in its dialect; 401 and 500 are possible everywhere."""
    kind = "application/problem+json" if model is ProblemAnswer else "application/json"
    content = {kind: {"schema": reference(model)}}
    return {s: {"description": _DESCRIPTIONS[s], "content": content} for s in sorted({*statuses, 401, 500})}


def _frame(document: dict[str, Any]) -> None:
    """Add the answers that ``middleware`` may give before any route is reached, in the dialect of the route."""
    for path, operations in document["paths"].items():
        model = ErrorAnswer if path.startswith("/v2") else ProblemAnswer
        for operation in operations.values():
            answers = operation["responses"]
            content = answers.get("500", problems(model=model)[500])["content"]
            for status in _FRAME:
                answers.setdefault(str(status), {"description": _DESCRIPTIONS[status], "content": content})


def complete(app: FastAPI) -> None:
    """Add referenced models and the bearer key to the app's document."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            models = [(model, "validation") for model in _referenced.values()]
            _, definitions = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(definitions["$defs"])
            _frame(document)
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{}, {"key": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
