"""``POST /v1/learn``: learn from photos that nobody labelled; nothing is learned from other requests."""

from __future__ import annotations

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
from sar_infer.server.http.request import Texts, Writable, check_count, decoded, parse
from sar_infer.server.problems import Problem
from sar_infer.server.routes.classes import IfMatch

router = APIRouter(tags=["classes"])
_BUSY_SECONDS = 2


class LearnRequest(BaseModel):
    """Photos without labels."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[Texts, Field(min_length=1, description="base64, or data:image/…;base64,… URIs")]
    all_known: bool = Field(False, description="every photo is of one of the bank's classes: learn more")
    dry_run: bool = Field(False, description="change nothing")


class LearnedClassEntry(BaseModel):
    """What the photos taught of one class."""

    name: str
    photos: int = Field(description="photos that are answered with it afterwards")
    sure: float = Field(description="how surely, 0 to 1")
    counts_as: float = Field(description="photos with labels that they count as")


class PhotoEntry(BaseModel):
    """One photo and its answers."""

    key: str = Field(description="its place in the request")
    before: str
    after: str
    sure: float
    why: str


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
    """Learn from the photos of this request, in place of what was learned before; one step of the bank's history.

    The bank keeps sums by class, never a photo. Needs a server with a key, ``--bank``, and class statistics.
    """
    body, limits = await request.body(), service.settings.limits
    asked = await service.in_turn(len(body), lambda: parse(LearnRequest, body, limits))
    check_count(len(asked.images), limits)
    images = await service.in_turn(len(body), lambda: [decoded(text) for text in asked.images])
    labels = [f"images[{number}]" for number in range(len(images))]

    def row(unit_row: Floats) -> Floats:
        first: Floats = unit_row[0]
        return first

    with service.lease() as engine:
        with service.admission.images.hold(len(images)):
            rows = np.array(await engine.all_of(images, row, labels), np.float32)

        def taught(bank: ClassBank) -> tuple[Learn, LearningReport]:
            with FeatureSpool.of(rows.shape[1], [(labels, rows)]) as spool:
                return engine.classifier.learn(spool, bank=bank, all_known=asked.all_known)

        try:
            report, etag = await service.change(lambda: service.store.learn(taught, if_match, dry_run=asked.dry_run))
        except ChangeRefusedError as error:
            raise Problem(error.code, str(error), _BUSY_SECONDS if error.code == "overloaded" else None) from None
    return JSONResponse(asdict(report) | {"bank": etag}, headers={"ETag": f'"{etag}"'})
