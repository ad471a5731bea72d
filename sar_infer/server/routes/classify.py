"""``POST /v1/classify``: our own protocol. A call is a raw image, multipart or JSON."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError, to_json
from starlette.datastructures import QueryParams

from sar_infer.classify.output import optional_fields
from sar_infer.results import DecisionOptions, ImageResult
from sar_infer.server.asking import ask
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.engine import milliseconds
from sar_infer.server.model.line import Outcome
from sar_infer.server.openapi import IMAGE_TYPES, answer, form, problems, request_body
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.request import (
    IMAGES,
    MAX_TOP_K,
    BankName,
    Mode,
    Serving,
    Texts,
    checked,
    chooses_only,
    cleaned,
    read_call,
)

PATH = "/v1/classify"
router = APIRouter(tags=["classify"])
_MOST_BANKS = 32
_DECIDED = ("unknown", "threshold", "coverage", "explain", "several")
"""Fields of ``DecisionOptions``."""


class ClassifyOptions(BaseModel):
    """Options that a call of any form may have in its query."""

    model_config = ConfigDict(extra="forbid")

    classes: list[str] = Field([], description="class names; may be repeated")
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = Field(None, description="classes to answer; 5 by default")
    mode: Mode | None = Field(
        None, description="default with classes: only if the bank has a bundle's default names, else extend"
    )
    unknown: bool | None = Field(None, description="give no class to an image that seems to be none of the classes")
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="with unknown: the probability above which an image is unknown, instead of the bank's"
    )
    coverage: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="return a set that contains the true class with this probability"
    )
    explain: bool | None = Field(None, description="give the reasons for the best class")
    several: bool | None = Field(None, description="give each class that the image shows, or none: labels")


class ClassifyQuery(ClassifyOptions):
    """The query of a call."""

    bank: Annotated[list[BankName], Field(max_length=_MOST_BANKS)] = Field(
        [], description="banks of --banks, by their names; may be repeated. By default that of --bank"
    )


def query_of(params: QueryParams) -> ClassifyQuery:
    """Return the query of a call, as FastAPI reads it.

    Raises:
        Problem: ``invalid-request``, naming the field.
    """
    fields = {name: params.getlist(name) if name in ("bank", "classes") else params[name] for name in params}
    return checked(ClassifyQuery, fields, "query.")


class ClassifyRequest(ClassifyOptions):
    """The JSON form of a call."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"images": ["iVBORw0KGgo…"], "classes": ["red mug", "tea pot"], "top_k": 3}]},
    )

    images: Texts = Field(min_length=1, description=IMAGES)
    classes: Texts | dict[str, Texts] | None = Field(  # type: ignore[assignment]  # a query has only names
        None, description="class names, or phrases by name, which are averaged"
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """Refuse other types with one plain message, where the union of types would give two."""
        lists = value.values() if isinstance(value, dict) else () if value is None else (value,)
        if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists):
            raise PydanticCustomError("classes", "expected a list of names, or lists of phrases by name")
        return value


_FORM = form(**ClassifyOptions.model_json_schema()["properties"])


@router.post(
    PATH,
    responses={200: answer("ClassifyAnswer"), **problems(401, 404, 422, 503)},
    openapi_extra=request_body(ClassifyRequest, _FORM, binary=IMAGE_TYPES),
)
async def classify(request: Request, service: Serving, query: Annotated[ClassifyQuery, Query()]) -> Response:
    """Classify one image or several.

    A raw body is one image; if it cannot be read, the answer is a problem. In multipart and JSON a bad image fails
    only: its result has ``error`` set. Options stand in the query, or in the multipart or JSON body.
    """
    call, images = await read_call(request, service, ClassifyRequest, query)
    asked: dict[str, Any] = {**dict(query), **{field: value for field, value in call if value is not None}}
    phrases = cleaned(asked["classes"], service.settings.limits)
    only = chooses_only(asked["mode"], bool(phrases))
    options = DecisionOptions(**{field: asked[field] for field in _DECIDED if asked[field] is not None})
    banks: list[str] | list[None] = query.bank or [None]
    outcomes, classes, engine = await ask(service, images, banks, phrases, only, asked["top_k"] or 5, options)
    if call is query and (error := outcomes[0].error):
        raise Problem(IMAGE_CODES[error.kind], str(error))
    answers = []
    for name, (of_bank, digest) in zip(banks, classes, strict=True):
        results = [_result(number, outcome, name, service.metrics) for number, outcome in enumerate(outcomes)]
        answers.append({"results": results, "classes": len(of_bank.names), "bank": digest})
    content = {
        **(answers[0] if len(banks) == 1 else {"banks": dict(zip(query.bank, answers, strict=True))}),
        "bundle": engine.bundle.manifest.digest,
        "provider": engine.provider,
        "timings_ms": milliseconds(outcomes),
        "request_id": request.state.request_id,
    }
    return Response(to_json(content), media_type="application/json")


def _result(number: int, outcome: Outcome[ImageResult], bank: str | None, metrics: Metrics) -> dict[str, Any]:
    """Return ``Result`` of ``answers.json`` for an image of the call and one of its banks, and count it."""
    error, code = outcome.error, None if outcome.error is None else IMAGE_CODES[outcome.error.kind]
    result = outcome.value or ImageResult("", error=str(error))
    if result.banks is not None and bank is not None:
        result = result.banks[bank]
    if code is not None:
        metrics.rejected.labels(code).inc()
    return {
        "image": f"image[{number}]",
        "predictions": [{"rank": rank, **vars(prediction)} for rank, prediction in enumerate(result.predictions, 1)],
        "error": result.error,
        "error_code": code,
        "unknown": result.unknown,
        "unknown_threshold": result.unknown_threshold,
        **optional_fields(result),
    }
