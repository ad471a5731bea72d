"""``POST /v1/suggest``: groups among photos that nobody labelled, and which of them are worth a label."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sar_infer._arrays import Floats
from sar_infer.server.http.forms import read_form
from sar_infer.server.http.openapi import BINARY, problems, reference
from sar_infer.server.http.request import Keyed, Texts, check_count, decoded, parse
from sar_infer.server.model.engine import ImageInput
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.service import Service, in_thread

router = APIRouter(tags=["classes"])
MOST_EMBEDDINGS = 1000
"""Photos of a call that come as embeddings; they are compared in pairs."""
_UNIT = 0.01


class SuggestRequest(BaseModel):
    """The JSON form of a call: images, or embeddings of them."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[Texts, Field(min_length=1, description="base64, or data:image/…;base64,… URIs")] | None = None
    embeddings: Annotated[Texts, Field(min_length=1, max_length=MOST_EMBEDDINGS)] | None = Field(
        None,
        description="in place of images: of /v1/embeddings with encoding_format base64, so that more fit in a call",
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
    photos: list[int] = Field(description="numbers of the photos in the call, from 0; the most typical first")


class LabelWorth(BaseModel):
    """A photo whose label would help."""

    photo: int = Field(description="its number in the call, from 0")
    answers: list[Answer] = Field(description="the two answers between which it is in doubt")


class Unreadable(BaseModel):
    """An image that is in no group."""

    photo: int
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


_FORM = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "array", "minItems": 1, "items": BINARY}},
}


@router.post(
    "/v1/suggest",
    response_model=SuggestAnswer,
    responses=problems(400, 403, 408, 413, 415, 422, 429, 503, 504),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference(SuggestRequest)},
                "multipart/form-data": {"schema": _FORM},
            },
        }
    },
)
async def suggest(request: Request, service: Keyed) -> Response:
    """Find groups of photos that are of no class yet, and photos whose label would help most.

    Changes nothing; PUT /v1/classes/{name} makes a class of a group. Needs a server with a key, and the extra
    ``suggest``.
    """
    images, embeddings = await _read_call(request, service)
    bank = (await service.current()).bank
    with service.lease() as engine:
        errors: list[dict[str, Any]] = []
        numbers: Sequence[int] = range(len(embeddings))
        if images:
            with service.admission.images.hold(len(images)):
                outcomes = await engine.each(images, lambda row: row[0].copy())
            errors = [
                {"photo": number, "error": str(one.error), "error_code": IMAGE_CODES[one.error.kind]}
                for number, one in enumerate(outcomes)
                if one.error is not None
            ]
            numbers = [number for number, one in enumerate(outcomes) if one.error is None]
            embeddings = [one.value for one in outcomes if one.value is not None]
        rows = _rows(embeddings, engine.bundle.manifest.embed_dim)
        classes = await engine.names.class_set({}, only=False, bank=bank)
        classifier = engine.classifier

        def look() -> dict[str, Any]:
            return classifier.described(classifier.suggest(rows, classes), rows, classes, numbers)

        with service.admission.changes.hold(1):
            async with service.suggesting:  # one at a time: photos are compared in pairs
                content = await in_thread(look)
    answer = {**content, "errors": errors, "bank": bank.content_digest}
    return Response(to_json(answer), media_type="application/json")


async def _read_call(request: Request, service: Service) -> tuple[Sequence[ImageInput], list[Floats]]:
    """Return the images of a call, or the rows of its embeddings.

    Raises:
        Problem: the body is in no known form or malformed, or asks for too much.
    """
    limits = service.settings.limits
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images = (await read_form(request, limits, ("image",), 0)).images
        check_count(len(images), limits)
        return images, []
    if kind != "application/json":
        raise Problem("unsupported-media-type", f"expected multipart/form-data or application/json, got {kind!r:.80}")
    body = await request.body()
    call = await service.in_turn(len(body), lambda: parse(SuggestRequest, body, limits))
    if (call.images is None) == (call.embeddings is None):
        raise Problem("invalid-request", "expected either images or embeddings")
    check_count(len(call.images or ()), limits)
    images = await service.in_turn(len(body), lambda: [decoded(text) for text in call.images or ()])
    return images, await service.in_turn(len(body), lambda: [*map(_embedding, call.embeddings or ())])


def _embedding(text: str) -> Floats:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise Problem("invalid-request", "embeddings: expected little-endian float32 in base64") from None


def _rows(embeddings: Sequence[Floats], width: int) -> Floats:
    """Return rows (N, D).

    Raises:
        Problem: They are no unit rows of this encoder.
    """
    if any(row.shape != (width,) or not abs(float(np.linalg.norm(row)) - 1) < _UNIT for row in embeddings):
        raise Problem(
            "invalid-request", f"embeddings: expected {width} numbers each, of length 1, as this server makes"
        )
    return np.array(embeddings, np.float32).reshape(-1, width)
