"""``POST /v1/suggest``: groups among photos that nobody labelled, and which of them are worth a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sar_infer._arrays import Floats
from sar_infer.errors import ImageError
from sar_infer.server.http.forms import read_form
from sar_infer.server.http.openapi import BINARY, problems, reference
from sar_infer.server.http.request import EMBEDDINGS, Keyed, Texts, check_count, decoded, embedded, parse
from sar_infer.server.model.engine import Engine, ImageInput
from sar_infer.server.photo_folder import FOLDER, folder_features
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.service import Service, in_thread

router = APIRouter(tags=["classes"])
MOST_EMBEDDINGS = 1000
"""Photos of a call that come as embeddings; they are compared in pairs."""
_MOST_OF_A_FOLDER = 20_000
"""Photos of a folder; their rows are in memory."""


class SuggestRequest(BaseModel):
    """The JSON form of a call: images, or embeddings of them."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[Texts, Field(min_length=1, description="base64, or data:image/…;base64,… URIs")] | None = None
    embeddings: Annotated[Texts, Field(min_length=1, max_length=MOST_EMBEDDINGS)] | None = Field(
        default=None, description=EMBEDDINGS
    )
    folder: str | None = Field(default=None, description=FOLDER)


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

    The photos are those of this request, as images or embeddings, or of a folder that the operator allowed
    (``--photos``). Changes nothing; PUT /v1/classes/{name} makes a class of a group. Needs a server with a key, and the
    extra ``suggest``.
    """
    call, images = await _read_call(request, service)
    with service.lease() as engine:
        photos = await _photos(request, service, engine, call, images)
        bank = (await service.current()).bank
        classes = await engine.names.class_set({}, only=False, bank=bank)
        classifier = engine.classifier

        def look() -> dict[str, Any]:
            return classifier.described(classifier.suggest(photos.rows, classes), photos.rows, classes, photos.keys)

        with service.admission.changes.hold(1):
            async with service.suggesting:  # one at a time: photos are compared in pairs
                content = await in_thread(look)
    errors = [{"photo": key, "error": str(e), "error_code": IMAGE_CODES[e.kind]} for key, e in photos.errors]
    answer = {**content, "errors": errors, "bank": bank.content_digest}
    return Response(to_json(answer), media_type="application/json")


@dataclass(frozen=True, eq=False)
class _Photos:
    """Photos of a call: numbers or paths, unit rows (N, D), and those that cannot be read."""

    keys: Sequence[int] | Sequence[str]
    rows: Floats
    errors: Sequence[tuple[int | str, ImageError]] = ()


async def _read_call(request: Request, service: Service) -> tuple[SuggestRequest, Sequence[ImageInput]]:
    """Return a call and its images.

    Raises:
        Problem: the body is in no known form or malformed, or asks for too much.
    """
    limits = service.settings.limits
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images = (await read_form(request, limits, ("image",), 0)).images
        check_count(len(images), limits)
        return SuggestRequest(), images
    if kind != "application/json":
        raise Problem("unsupported-media-type", f"expected multipart/form-data or application/json, got {kind!r:.80}")
    body = await request.body()
    call = await service.in_turn(len(body), lambda: parse(SuggestRequest, body, limits))
    if sum(content is not None for content in (call.images, call.embeddings, call.folder)) != 1:
        raise Problem("invalid-request", "expected either images or embeddings or folder")
    check_count(len(call.images or ()), limits)
    return call, await service.in_turn(len(body), lambda: [decoded(text) for text in call.images or ()])


async def _photos(
    request: Request, service: Service, engine: Engine, call: SuggestRequest, images: Sequence[ImageInput]
) -> _Photos:
    """Return the photos of a call, encoded.

    Raises:
        Problem: embeddings are none of this encoder, or see `folder_features`.
    """
    width = engine.bundle.manifest.embed_dim
    if call.folder is not None:
        async with folder_features(request, service, engine, call.folder, _MOST_OF_A_FOLDER) as features:
            return _Photos([*features.spool.keys()], np.array(features.spool.rows), features.errors)
    if call.embeddings is not None:
        texts = call.embeddings
        rows = await service.in_turn(4 * width * len(texts), lambda: embedded(texts, width))
        return _Photos(range(len(rows)), rows)
    with service.admission.images.hold(len(images)):
        outcomes = await engine.each(images, lambda row: row[0].copy())
    numbers = [number for number, one in enumerate(outcomes) if one.error is None]
    values = [one.value for one in outcomes if one.value is not None]
    errors = [(number, one.error) for number, one in enumerate(outcomes) if one.error is not None]
    return _Photos(numbers, np.array(values, np.float32).reshape(-1, width), errors)
