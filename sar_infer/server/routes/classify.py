"""``POST /v1/classify``: our own protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import Decision
from sar_infer.classify.output import optional_fields
from sar_infer.errors import InputError
from sar_infer.results import ImageResult, Prediction
from sar_infer.server.http.body import Call, read_call
from sar_infer.server.http.dependencies import Serving
from sar_infer.server.http.models import (
    COVERAGE,
    EXPLAIN,
    MAX_TOP_K,
    UNKNOWN,
    ClassifyAnswer,
    ClassifyOptions,
    ClassifyRequest,
)
from sar_infer.server.http.openapi import BINARY, problems, reference
from sar_infer.server.model.engine import Engine, Outcome, milliseconds
from sar_infer.server.problems import IMAGE_CODES, Problem

router = APIRouter(tags=["classify"])
_MULTIPART = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "array", "minItems": 1, "items": BINARY},
        "classes": {"type": "array", "items": {"type": "string"}},
        "top_k": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
        "mode": {"type": "string", "enum": ["bank", "extend", "only"]},
        "unknown": {"type": "string", "enum": ["score", "energy"], "description": UNKNOWN},
        "coverage": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "description": COVERAGE},
        "explain": {"type": "boolean", "description": EXPLAIN},
    },
}


@router.post(
    "/v1/classify",
    response_model=ClassifyAnswer,
    responses=problems(400, 408, 413, 415, 422, 429, 503, 504),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "image/jpeg": {"schema": BINARY},
                "image/png": {"schema": BINARY},
                "image/webp": {"schema": BINARY},
                "multipart/form-data": {"schema": _MULTIPART},
                "application/json": {"schema": reference(ClassifyRequest)},
            },
        }
    },
)
async def classify(request: Request, service: Serving, query: Annotated[ClassifyOptions, Query()]) -> Response:
    """Classify one picture or several.

    A raw body is one picture, and a bad one is a problem. In multipart and JSON a bad picture fails alone: its result
    has ``error`` set. Options stand in the query, or in the multipart or JSON body.
    """
    call = await read_call(request, query, service)
    with service.lease() as engine, service.admit(len(call.pictures)):
        bank = service.store.bank
        chosen = await engine.names.class_set(call.classes, call.only, bank)
        decide = _decision(engine, chosen, call)
        outcomes = await engine.each(call.pictures, lambda row: next(decide(row)))
    if call.single and (error := outcomes[0].error):
        raise Problem(IMAGE_CODES[error.kind], str(error))
    for outcome in outcomes:
        if outcome.value:
            service.metrics.top_score.observe(outcome.value.predictions[0].score)
            service.metrics.unknown.inc(bool(outcome.value.unknown))
        elif outcome.error:
            service.metrics.rejected.labels(IMAGE_CODES[outcome.error.kind]).inc()
    answer = {
        "results": [_result(i, outcome, chosen.branch) for i, outcome in enumerate(outcomes)],
        "classes": len(chosen.names),
        "bundle": engine.bundle.manifest.digest,
        "bank": bank.content_digest,
        "provider": engine.provider,
        "timings_ms": milliseconds(outcomes),
        "request_id": request.state.request_id,
    }
    return Response(json.dumps(answer, ensure_ascii=False), media_type="application/json")


def _decision(engine: Engine, classes: ClassSet, call: Call) -> Decision:
    try:
        return engine.classifier.decide(classes, call.top_k, call.judging)
    except InputError as error:
        raise Problem("invalid-request", str(error)) from None


def _result(index: int, outcome: Outcome[ImageResult], branch: str) -> dict[str, Any]:
    error, result = outcome.error, outcome.value
    return {
        "image": f"image[{index}]",
        "predictions": [] if result is None else _predictions(result.predictions),
        "error": None if error is None else str(error),
        "error_code": None if error is None else IMAGE_CODES[error.kind],
        "branch": branch,
        **({} if result is None else optional_fields(result)),
    }


def _predictions(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    return [
        {
            "rank": rank,
            "label": p.label,
            "score": p.score,
            "logit": p.logit,
            "similarity": p.similarity,
            "source": p.source,
            "calibrated": p.calibrated,
        }
        for rank, p in enumerate(predictions, start=1)
    ]
