"""The parts of the OpenAPI document that FastAPI does not make.

``answers.json`` has the schemas of all answers, and that of ``doors`` those of its own. Routes return responses, so
FastAPI derives none from annotations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import pydantic.dataclasses  # noqa: F401 - else pydantic imports it for the first document
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sar_infer.server.problems import CODES

BINARY = {"type": "string", "format": "binary"}
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
_REFERENCE = "#/components/schemas/{model}"
_FROM_FRONT = (400, 408, 413, 415, 429, 500, 501, 504)
"""Errors of any route."""
_answers: dict[str, Any] = {}
_requests: dict[str, type[BaseModel]] = {}


def describe_answers(package: str) -> None:
    """Add the schemas of answers that a package has in ``answers.json``."""
    _answers.update(json.loads((resources.files(package) / "answers.json").read_bytes()))


describe_answers("sar_infer.server")


def form(field: str = "image", **properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a form with images in a field, and fields of these schemas."""
    images = {"type": "array", "minItems": 1, "items": BINARY}
    return {"type": "object", "required": [field], "properties": {field: images, **properties}}


def request_body(
    model: type[BaseModel] | None,
    form: dict[str, Any] | None = None,
    *,
    binary: Sequence[str] = (),
    required: bool = True,
) -> dict[str, Any]:
    """Return the description of a body that a route reads by itself.

    Args:
        model: Its form in JSON, if it may be one.
        form: Schema of its form as ``multipart/form-data``, if it may be one.
        binary: Content types of its form in bytes.
        required: It cannot be left out.
    """
    schemas: dict[str, Any] = {}
    if model is not None:
        _requests[model.__name__] = model
        schemas["application/json"] = {"$ref": _REFERENCE.format(model=model.__name__)}
    schemas |= {**({"multipart/form-data": form} if form else {}), **dict.fromkeys(binary, BINARY)}
    body: dict[str, Any] = {"content": {kind: {"schema": schema} for kind, schema in schemas.items()}}
    return {"requestBody": {**body, **({"required": True} if required else {})}}


def answer(name: str, description: str = "Successful response.", kind: str = "application/json") -> dict[str, Any]:
    """Return the description of an answer by the name of its schema in an ``answers.json``, perhaps ``NAME[]``."""
    schema: dict[str, Any] = {"$ref": _REFERENCE.format(model=name.removesuffix("[]"))}
    if name.endswith("[]"):
        schema = {"type": "array", "items": schema}
    return {"description": description, "content": {kind: {"schema": schema}}}


def problems(*statuses: int, model: str = "ProblemAnswer") -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route, also those of ``front``, in the form of its protocol."""
    kind = "application/problem+json" if model == "ProblemAnswer" else "application/json"
    titles = {status: "; ".join(title for of, title in CODES.values() if of == status) for status, _ in CODES.values()}
    return {status: answer(model, f"{titles[status]}.", kind) for status in (*_FROM_FRONT, *statuses)}


def complete(app: FastAPI) -> None:
    """Add the schemas and the bearer key to the app's document."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            models = [(model, "validation") for model in _requests.values()]
            _, definitions = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(definitions["$defs"] | _answers)
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{}, {"key": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
