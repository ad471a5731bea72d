"""``POST /v1/suggest``: groups among photos that nobody labelled, and which of them are worth a label."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from sar_infer.server.http.body import FORM, JSON, media_type, read_call
from sar_infer.server.http.openapi import form, problems, request_body
from sar_infer.server.http.request import Keyed, Texts
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.routes.unlabelled import EMBEDDINGS, Unlabelled, photo_features
from sar_infer.server.service import in_thread

router = APIRouter(tags=["classes"])
MOST_EMBEDDINGS = 1000
"""Photos of a call that come as embeddings; they are compared in pairs."""
_MOST_OF_A_FOLDER = 20_000
"""Photos of a folder; their rows are in memory."""


class SuggestRequest(Unlabelled):
    """The JSON form of a call: images, or embeddings of them."""

    embeddings: Annotated[Texts, Field(min_length=1, max_length=MOST_EMBEDDINGS)] | None = Field(
        None, description=EMBEDDINGS
    )


class Answer(BaseModel):
    """A class with its score."""

    label: str
    score: float


class PhotoGroup(BaseModel):
    """Photos that look alike."""

    size: int
    like: str | None = Field(description="the class that they look like; null if they look like none")
    nearest: list[Answer] = Field(description="the best answers, with their mean score over the group")
    photos: list[int | str] = Field(
        description="numbers in the call, from 0, or paths below the allowed folder; the most typical photos first"
    )


class LabelWorth(BaseModel):
    """A photo whose label would help."""

    photo: int | str = Field(description="its number in the call, from 0, or its path below the allowed folder")
    answers: list[Answer] = Field(description="the two answers between which it is in doubt")


class Unreadable(BaseModel):
    """An image that is in no group."""

    photo: int | str
    error: str
    error_code: str


class SuggestAnswer(BaseModel):
    """Groups, first those like no class and of these the largest; and photos worth a label, the best first."""

    photos: int
    classes: int
    groups: list[PhotoGroup]
    labels: list[LabelWorth]
    errors: list[Unreadable]
    bank: str = Field(description="digest of the bank's content, also its ETag")


@router.post(
    "/v1/suggest",
    response_model=SuggestAnswer,
    responses=problems(403, 422, 503),
    openapi_extra=request_body(SuggestRequest, form()),
)
async def suggest(request: Request, service: Keyed) -> Response:
    """Find groups of photos that are of no class yet, and photos whose label would help most.

    The photos are those of this request, as images or embeddings, or of a folder that the operator allowed
    (``--photos``). Changes nothing; PUT /v1/classes/{name} makes a class of a group. Needs a server with a key, and the
    extra ``suggest``.
    """
    kind = media_type(request)
    if kind not in (FORM, JSON):
        raise Problem("unsupported-media-type", f"expected multipart/form-data or application/json, got {kind!r:.80}")
    call, images = await read_call(request, service, SuggestRequest)
    numbered = call.folder is None
    with service.lease() as engine:
        async with photo_features(request, service, engine, call, images, _MOST_OF_A_FOLDER) as features:
            rows = np.array(features.rows)
            keys = [*map(int, features.keys())] if numbered else [*features.keys()]
        bank = (await service.current()).bank
        classes = await engine.names.class_set({}, only=False, bank=bank)

        def look() -> dict[str, Any]:
            suggestions = engine.classifier.suggest(rows, classes)
            return engine.classifier.described(suggestions, rows, classes, keys)

        with service.admission.changes.hold(1):
            async with service.suggesting:  # one at a time: photos are compared in pairs
                content = await in_thread(look)
    errors = [
        {"photo": int(key) if numbered else key, "error": str(error), "error_code": IMAGE_CODES[error.kind]}
        for key, error in features.errors
    ]
    answer = {**content, "errors": errors, "bank": bank.content_digest}
    return Response(to_json(answer), media_type="application/json")
