"""The parts of the OpenAPI document that FastAPI does not make by itself, and the models of errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic.dataclasses  # noqa: F401 - else pydantic imports it for the first document
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sar_infer.server.problems import CODES

BINARY = {"type": "string", "format": "binary"}
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
_REFERENCE = "#/components/schemas/{model}"
_FROM_MIDDLEWARE = (400, 408, 413, 415, 429, 500, 504)


class ProblemAnswer(BaseModel):
    """A problem after RFC 9457, ``application/problem+json``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class ErrorAnswer(BaseModel):
    """An error in Open Inference Protocol v2 and in Hugging Face's API."""

    error: str


_referenced: dict[str, type[BaseModel]] = {"ProblemAnswer": ProblemAnswer}


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """Return a reference to a model's schema, and add that to the components of the document."""
    _referenced[model.__name__] = model
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def form(**properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a form with images and, beside them, fields of these schemas."""
    images = {"type": "array", "minItems": 1, "items": BINARY}
    return {"type": "object", "required": ["image"], "properties": {"image": images, **properties}}


def request_body(
    model: type[BaseModel], form: dict[str, Any] | None = None, *, binary: Sequence[str] = (), required: bool = True
) -> dict[str, Any]:
    """Return the description of a body that a route reads by itself.

    Args:
        model: Its form in JSON.
        form: Schema of its form as ``multipart/form-data``, if it may be one.
        binary: Content types of its form in bytes.
        required: It cannot be left out.
    """
    schemas = {"application/json": reference(model), **({"multipart/form-data": form} if form else {})}
    schemas |= dict.fromkeys(binary, BINARY)
    body: dict[str, Any] = {"content": {kind: {"schema": schema} for kind, schema in schemas.items()}}
    return {"requestBody": {**body, **({"required": True} if required else {})}}


def problems(*statuses: int, model: type[BaseModel] = ProblemAnswer) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route, in the form of its protocol; those of the middleware are added to every route."""
    kind = "application/problem+json" if model is ProblemAnswer else "application/json"
    content = {kind: {"schema": reference(model)}}
    return {status: {"description": _titles(status), "content": content} for status in sorted({*statuses, 401, 500})}


def _titles(status: int) -> str:
    return "; ".join(title for code_status, title in CODES.values() if code_status == status) + "."


def _add_errors_of_middleware(document: dict[str, Any]) -> None:
    """Add the errors that ``middleware`` may answer before a route is reached, in the form of the route's protocol."""
    for path, operations in document["paths"].items():
        model = ErrorAnswer if path.startswith("/v2") else ProblemAnswer
        for operation in operations.values():
            answers = operation["responses"]
            content = answers.get("500", problems(model=model)[500])["content"]
            for status in _FROM_MIDDLEWARE:
                answers.setdefault(str(status), {"description": _titles(status), "content": content})


def complete(app: FastAPI) -> None:
    """Add the referenced models, the errors of the middleware and the bearer key to the app's document."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            models = [(model, "validation") for model in _referenced.values()]
            _, definitions = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(definitions["$defs"])
            _add_errors_of_middleware(document)
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{}, {"key": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
