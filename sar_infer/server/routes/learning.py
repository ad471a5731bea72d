"""``POST /v1/learn``: learn from photos that nobody labelled; nothing is learned from other requests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank, Learn
from sar_infer.classifiers.learning_report import LearningReport
from sar_infer.classifiers.spool import FeatureSpool
from sar_infer.server.bank.changes import ChangeRefusedError
from sar_infer.server.http.openapi import problems, reference
from sar_infer.server.http.request import EMBEDDINGS, Texts, Writable, check_count, decoded, embedded, parse
from sar_infer.server.model.engine import Engine
from sar_infer.server.photo_folder import FOLDER, FolderFeatures, folder_features
from sar_infer.server.problems import Problem
from sar_infer.server.routes.classes import IfMatch
from sar_infer.server.service import Service

router = APIRouter(tags=["classes"])
_BUSY_SECONDS = 2


class LearnRequest(BaseModel):
    """Photos without labels."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[Texts, Field(min_length=1, description="base64, or data:image/…;base64,… URIs")] | None = None
    embeddings: Annotated[Texts, Field(min_length=1)] | None = Field(default=None, description=EMBEDDINGS)
    folder: str | None = Field(default=None, description=FOLDER)
    all_known: bool = Field(False, description="every photo is of one of the bank's classes: learn more")
    dry_run: bool = Field(False, description="change nothing")


class LearnedClassEntry(BaseModel):
    """Result of the photos for one class."""

    name: str
    photos: int = Field(description="photos that are answered with it afterwards")
    sure: float = Field(description="how surely, 0 to 1")
    counts_as: float = Field(description="photos with labels that they count as")


class PhotoEntry(BaseModel):
    """One photo and its answers."""

    key: str = Field(description="its place in the request, or its path below the allowed folder")
    before: str
    after: str
    sure: float
    why: str


class UnreadablePhoto(BaseModel):
    """A photo of the folder that is left out."""

    key: str
    error: str


class LearnAnswer(BaseModel):
    """The report of ``sar-bank learn``."""

    photos: int
    counted: int
    strangers: int = Field(description="photos like none of the classes, set aside")
    doubtful: int
    all_known: bool
    classes: list[LearnedClassEntry]
    changed: int = Field(description="photos whose answer changes")
    examples: list[PhotoEntry]
    look_first: list[PhotoEntry]
    shift: float = Field(description="share of the photos' shift that is common to all, as a camera's")
    translated: float = Field(description="what is taken off before ranking, as a share of the spread of classes")
    different: bool = Field(description="the photos are of another kind than those of the class statistics")
    unreadable: int = Field(description="photos of the folder that cannot be read; in a request, each is refused")
    errors: list[UnreadablePhoto] = Field(description="the first 100 of them")
    bank: str


@router.post(
    "/v1/learn",
    response_model=LearnAnswer,
    responses=problems(400, 403, 408, 409, 412, 413, 415, 422, 429, 503, 504, 507),
    openapi_extra={
        "requestBody": {"content": {"application/json": {"schema": reference(LearnRequest)}}, "required": True}
    },
)
async def learn(request: Request, service: Writable, if_match: IfMatch = None) -> Response:
    """Learn from photos, in place of what was learned before; one step of the bank's history.

    The photos are those of this request, or of a folder that the operator allowed (``--photos``). The bank keeps sums
    by class, never a photo. Needs a server with a key, ``--bank``, and class statistics.
    """
    body, limits = await request.body(), service.settings.limits
    call = await service.in_turn(len(body), lambda: parse(LearnRequest, body, limits))
    check_count(len(call.images or ()), limits)
    with service.lease() as engine:
        async with _features(request, service, engine, call, len(body)) as features:

            def taught(bank: ClassBank) -> tuple[Learn, LearningReport]:
                if service.engine is not engine:
                    raise ChangeRefusedError("overloaded", "another bundle has been loaded meanwhile; try again")
                return engine.classifier.learn(features.spool, bank=bank, all_known=call.all_known)

            try:
                report, etag = await service.change(lambda: service.store.learn(taught, if_match, dry_run=call.dry_run))
            except ChangeRefusedError as error:
                raise Problem(error.code, str(error), _BUSY_SECONDS if error.code == "overloaded" else None) from None
    errors = [{"key": key, "error": str(error)} for key, error in features.errors]
    content = asdict(report) | {"unreadable": features.unreadable, "errors": errors, "bank": etag}
    return JSONResponse(content, headers={"ETag": f'"{etag}"'})


@contextlib.asynccontextmanager
async def _features(
    request: Request, service: Service, engine: Engine, call: LearnRequest, size: int
) -> AsyncIterator[FolderFeatures]:
    """Encode the photos of a call, whose body has so many bytes.

    Raises:
        Problem: It has no photos, or of two kinds; an image of the request is bad; or see `folder_features`.
    """
    if sum(content is not None for content in (call.images, call.embeddings, call.folder)) != 1:
        raise Problem("invalid-request", "expected either images or embeddings or folder")
    if call.folder is not None:
        async with folder_features(request, service, engine, call.folder) as features:
            yield features
        return
    width, texts = engine.bundle.manifest.embed_dim, call.embeddings
    if texts is not None:
        labels = [f"embeddings[{number}]" for number in range(len(texts))]
        rows = await service.in_turn(size, lambda: embedded(texts, width))
    else:
        images = await service.in_turn(size, lambda: [decoded(text) for text in call.images or ()])
        labels = [f"images[{number}]" for number in range(len(images))]
        with service.admission.images.hold(len(images)):
            rows = np.array(await engine.all_of(images, _row, labels), np.float32)
    with FeatureSpool.of(width, [(labels, rows)]) as spool:
        yield FolderFeatures(spool)


def _row(unit_row: Floats) -> Floats:
    row: Floats = unit_row[0].copy()
    return row
