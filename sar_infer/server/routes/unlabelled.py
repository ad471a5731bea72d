"""``POST /v1/learn`` and ``POST /v1/suggest``: what photos that nobody labelled teach, and which groups they form.

They come as images, or as embeddings of images. Nothing is learned from other requests.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank, Learned
from sar_infer.bank import learn as learn_edit
from sar_infer.bank.edits import ahead
from sar_infer.class_model.spool import FeatureSpool
from sar_infer.classify.learning import LearningReport
from sar_infer.server.model.banks import BUSY_SECONDS
from sar_infer.server.model.engine import Engine, values_of
from sar_infer.server.model.line import ImageInput, Outcome
from sar_infer.server.openapi import answer, form, problems, request_body
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.request import IMAGES, Bank, Keyed, Texts, Writable, read_call, read_images, read_json
from sar_infer.server.routes.classes import IfMatch, check_match
from sar_infer.server.service import Service

router = APIRouter(tags=["classes"])
_EMBEDDINGS = "instead of images: of /v1/embeddings with encoding_format base64, so that more fit in a call"
_UNIT = 0.01
_MOST_EMBEDDINGS = 1000
"""Photos of a call that come as embeddings; they are compared in pairs."""


class Unlabelled(BaseModel):
    """Photos without labels, in one of two forms."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[Texts, Field(min_length=1, description=IMAGES)] | None = None
    embeddings: Annotated[Texts, Field(min_length=1)] | None = Field(None, description=_EMBEDDINGS)


class LearnRequest(Unlabelled):
    """Photos without labels."""

    all_known: bool = Field(False, description="every photo is of one of the bank's classes: learn more")
    dry_run: bool = Field(False, description="change nothing")


class SuggestRequest(Unlabelled):
    """The JSON form of a call: images, or embeddings of them."""

    embeddings: Annotated[Texts, Field(min_length=1, max_length=_MOST_EMBEDDINGS)] | None = Field(
        None, description=_EMBEDDINGS
    )


@router.post(
    "/v1/learn",
    responses={200: answer("LearnAnswer"), **problems(401, 403, 404, 409, 412, 422, 503, 507)},
    openapi_extra=request_body(LearnRequest),
)
async def learn(request: Request, service: Writable, bank: Bank = None, if_match: IfMatch = None) -> Response:
    """Learn from photos, which replaces what was learned before; one step of the bank's history.

    The bank stores sums by class, never a photo. Needs a server with a key, ``--bank``, and a class model.
    """
    call = await read_json(request, service, LearnRequest)
    images = await read_images(service, call.images)
    kind = "embeddings" if call.images is None else "images"
    with service.lease() as engine:
        outcomes = await _embedded(service, engine, call, images)
        keys = [f"{kind}[{number}]" for number in range(len(outcomes))]
        rows = np.array(values_of(outcomes, keys), np.float32)

        def adapt(bank: ClassBank) -> tuple[Learned, LearningReport]:
            with FeatureSpool(rows.shape[1], [(keys, rows)]) as spool:
                return engine.classifier.adapt(spool, bank=bank, all_known=call.all_known)

        async def learned() -> tuple[ClassBank, LearningReport]:
            with service.changes.hold(1):  # also if the client leaves
                whole = await engine.banks.whole(bank)
                adapted = await service.alone(lambda: ahead(whole, adapt))  # before the file is locked

            def edit(bank: ClassBank) -> tuple[ClassBank, LearningReport]:
                check_match(if_match, bank)
                if service.engine is not engine:
                    raise Problem("overloaded", "another bundle has been loaded meanwhile; try again", BUSY_SECONDS)
                change, report = adapted(bank)
                return bank if call.dry_run else learn_edit(bank, change, by="sar-serve"), report

            return await service.change(edit, bank)

        after, report = await service.finished(learned())
    etag = after.state_digest
    return JSONResponse(asdict(report) | {"bank": etag}, headers={"ETag": f'"{etag}"'})


@router.post(
    "/v1/suggest",
    responses={200: answer("SuggestAnswer"), **problems(401, 403, 404, 422, 503)},
    openapi_extra=request_body(SuggestRequest, form()),
)
async def suggest(request: Request, service: Keyed, bank: Bank = None) -> Response:
    """Find groups of photos that are of no class yet, and photos whose label would help most.

    Changes nothing; PUT /v1/classes/{name} makes a class of a group. Needs a server with a key, and the extra
    ``suggest``.
    """
    call, images = await read_call(request, service, SuggestRequest)
    with service.lease() as engine:
        outcomes = await _embedded(service, engine, call, images)
        features = {number: one.value for number, one in enumerate(outcomes) if one.value is not None}
        rows = np.array([*features.values()], np.float32).reshape(-1, engine.bundle.manifest.embed_dim)
        whole = await engine.banks.whole(bank)

        def look() -> dict[str, Any]:
            classes = engine.classifier.class_set(bank=whole)
            return engine.classifier.suggest(rows, classes, [*features])

        with service.changes.hold(1):
            content = await service.alone(look)  # photos are compared in pairs
    errors = [
        {"photo": number, "error": str(one.error), "error_code": IMAGE_CODES[one.error.kind]}
        for number, one in enumerate(outcomes)
        if one.error is not None
    ]
    return Response(to_json({**content, "errors": errors, "bank": whole.state_digest}), media_type="application/json")


async def _embedded(
    service: Service, engine: Engine, photos: Unlabelled, images: Sequence[ImageInput]
) -> list[Outcome[Floats]]:
    """Return the unit row (D,) of each of a call's photos, or why it cannot be read.

    Raises:
        Problem: ``invalid-request``: neither images nor embeddings, or both, or embeddings of another encoder.
    """
    texts, width = photos.embeddings, engine.bundle.manifest.embed_dim
    if (photos.images is None) == (texts is None):
        raise Problem("invalid-request", "expected either images or embeddings")
    if texts is None:
        with service.images.hold(len(images)):
            return await engine.line.each(images, lambda rows: rows)

    def decoded() -> list[Outcome[Floats]]:
        try:
            rows = [np.frombuffer(base64.b64decode(text, validate=True), "<f4") for text in texts]
        except (binascii.Error, ValueError):
            raise Problem("invalid-request", "embeddings: expected little-endian float32 in base64") from None
        lengths = (float(np.linalg.norm(row.astype(np.float64))) for row in rows)  # float32 may overflow
        if any(row.shape != (width,) or not abs(length - 1) < _UNIT for row, length in zip(rows, lengths, strict=True)):
            raise Problem(
                "invalid-request", f"embeddings: expected {width} numbers each, of length 1, as this server makes"
            )
        return [Outcome(row, None, {}) for row in rows]

    return await service.in_turn(4 * width * len(texts), decoded)
