"""``POST /v1/classify``: our own protocol. A call is a raw image, multipart or JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError, to_json

from sar_infer.classify.output import optional_fields
from sar_infer.results import DecisionOptions, ImageResult
from sar_infer.server.class_names import cleaned
from sar_infer.server.http.openapi import IMAGE_TYPES, form, problems, request_body
from sar_infer.server.http.request import (
    IMAGES,
    MAX_TOP_K,
    Mode,
    Serving,
    Texts,
    chooses_only,
    read_call,
)
from sar_infer.server.model.engine import Outcome, milliseconds
from sar_infer.server.problems import IMAGE_CODES, Problem

PATH = "/v1/classify"
router = APIRouter(tags=["classify"])
Coverage = Annotated[float, Field(gt=0, lt=1)]


class ClassifyOptions(BaseModel):
    """Options that a call of any form may have in its query."""

    model_config = ConfigDict(extra="forbid")

    classes: list[str] = Field([], description="names to add to the bank's; may be repeated")
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = Field(None, description="classes to answer; 5 by default")
    mode: Mode | None = Field(None, description="default: extend if classes are given, else bank")
    unknown: bool | None = Field(None, description="give no class to an image that seems to be none of the classes")
    coverage: Coverage | None = Field(
        None, description="return a set that contains the true class with this probability"
    )
    explain: bool | None = Field(None, description="give the reasons for the best class")


NO_OPTIONS = ClassifyOptions.model_validate({})


class ClassifyRequest(ClassifyOptions):
    """The JSON form of a call."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"images": ["iVBORw0KGgo…"], "classes": ["red mug", "tea pot"], "top_k": 3}]},
    )

    images: Texts = Field(min_length=1, description=IMAGES)
    classes: Texts | dict[str, Texts] | None = Field(  # type: ignore[assignment]  # a query has only names
        None, description="names to add to the bank's, or phrases by name, which are averaged"
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """Refuse other types with one plain message, where the union of types would give two."""
        lists = value.values() if isinstance(value, dict) else () if value is None else (value,)
        if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists):
            raise PydanticCustomError("classes", "expected a list of names, or lists of phrases by name")
        return value


class Prediction(BaseModel):
    """One class for one image."""

    rank: int = Field(description="1 is the best")
    label: str
    score: float = Field(description="softmax over the classes of the call, 0..1")
    logit: float
    similarity: float = Field(description="cosine between image and class")
    source: Literal["bank", "extended"] = Field(description="extended: the name came with the call")


class Explanation(BaseModel):
    """The reasons for the best class."""

    margin: float | None = Field(description="its score less the runner-up's")
    runner_up: str | None
    nearest: list[tuple[str, float]] = Field(description="classes nearest to the best one, with their cosines")
    background: str | None = Field(description="the background class that beats every other")


class Result(BaseModel):
    """One image, in the order of the call."""

    image: str
    predictions: list[Prediction]
    error: str | None = Field(description="why this image has no predictions")
    error_code: str | None
    unknown: float | None = Field(description="probability that it is none of the classes; null with an error")
    reason: str | None = Field(None, description="present if it is called unknown: why")
    label_set: list[str] | None = Field(None, description="present if coverage was requested")
    explanation: Explanation | None = Field(None, description="present if it was requested")


class ClassifyAnswer(BaseModel):
    """The answer to a call."""

    results: list[Result]
    classes: int = Field(description="number of classes to choose from")
    bundle: str = Field(description="digest of the bundle's manifest")
    bank: str = Field(description="digest of the bank's content, also its ETag")
    provider: str
    timings_ms: dict[str, float]
    request_id: str


_FORM = form(**ClassifyOptions.model_json_schema()["properties"])


@router.post(
    PATH,
    response_model=ClassifyAnswer,
    responses=problems(422, 503),
    openapi_extra=request_body(ClassifyRequest, _FORM, binary=IMAGE_TYPES),
)
async def classify(request: Request, service: Serving, query: Annotated[ClassifyOptions, Query()]) -> Response:
    """Classify one image or several.

    A raw body is one image; if it cannot be read, the answer is a problem. In multipart and JSON a bad image fails
    alone: its result has ``error`` set. Options stand in the query, or in the multipart or JSON body.
    """
    call, images = await read_call(request, service, ClassifyRequest, [*ClassifyOptions.model_fields], query)
    phrases = cleaned(call.classes or query.classes, service.settings.limits)
    only = chooses_only(call.mode or query.mode, bool(phrases))
    options = DecisionOptions(
        bool(query.unknown if call.unknown is None else call.unknown),
        coverage=call.coverage or query.coverage,
        explain=bool(query.explain if call.explain is None else call.explain),
    )
    with service.lease() as engine, service.images.hold(len(images)):
        bank = await service.current()
        classes = await engine.names.class_set(phrases, only, bank)
        decide = engine.decide(classes, call.top_k or query.top_k or 5, options)
        outcomes = await engine.each(images, decide, len(classes.names))
    if call is query and (error := outcomes[0].error):
        raise Problem(IMAGE_CODES[error.kind], str(error))
    for outcome in outcomes:
        if outcome.value:
            if outcome.value.predictions:
                service.metrics.top_score.observe(outcome.value.predictions[0].score)
            service.metrics.judged.inc()
            service.metrics.unknown.inc(outcome.value.reason is not None)
        elif outcome.error:
            service.metrics.rejected.labels(IMAGE_CODES[outcome.error.kind]).inc()
    answer = {
        "results": [_result(i, outcome) for i, outcome in enumerate(outcomes)],
        "classes": len(classes.names),
        "bundle": engine.bundle.manifest.digest,
        "bank": bank.content_digest,
        "provider": engine.provider,
        "timings_ms": milliseconds(outcomes),
        "request_id": request.state.request_id,
    }
    return Response(to_json(answer), media_type="application/json")


def _result(index: int, outcome: Outcome[ImageResult]) -> dict[str, Any]:
    error, result = outcome.error, outcome.value
    return {
        "image": f"image[{index}]",
        "predictions": [{"rank": rank, **vars(p)} for rank, p in enumerate(result.predictions if result else (), 1)],
        "error": None if error is None else str(error),
        "error_code": None if error is None else IMAGE_CODES[error.kind],
        "unknown": None if result is None else result.unknown,
        **({} if result is None else optional_fields(result)),
    }
