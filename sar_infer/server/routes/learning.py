"""``POST /v1/learn``: learn from photos that nobody labelled; nothing is learned from other requests."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from sar_infer.bank import ClassBank, Learn
from sar_infer.classifiers.learning_report import LearnedClass, LearningReport, PhotoNote
from sar_infer.server.admission import overloaded
from sar_infer.server.bank.store import BUSY_SECONDS
from sar_infer.server.http.body import read_images, read_json
from sar_infer.server.http.openapi import problems, request_body
from sar_infer.server.http.request import Writable
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.routes.classes import IfMatch
from sar_infer.server.routes.unlabelled import Unlabelled, photo_features

router = APIRouter(tags=["classes"])


class LearnRequest(Unlabelled):
    """Photos without labels."""

    all_known: bool = Field(False, description="every photo is of one of the bank's classes: learn more")
    dry_run: bool = Field(False, description="change nothing")


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
    classes: list[LearnedClass]
    changed: int = Field(description="photos whose answer changes")
    examples: list[PhotoNote] = Field(description="keys are places in the request, or paths below the allowed folder")
    look_first: list[PhotoNote]
    shift: float = Field(description="share of the photos' shift that is common to all, as a camera's")
    translated: float = Field(description="what is taken off before ranking, as a share of the spread of classes")
    different: bool = Field(description="the photos are of another kind than those of the class statistics")
    unreadable: int = Field(description="photos of the folder that cannot be read; in a request, each is refused")
    errors: list[UnreadablePhoto] = Field(description="the first 100 of them")
    bank: str


@router.post(
    "/v1/learn",
    response_model=LearnAnswer,
    responses=problems(403, 409, 412, 422, 503, 507),
    openapi_extra=request_body(LearnRequest),
)
async def learn(request: Request, service: Writable, if_match: IfMatch = None) -> Response:
    """Learn from photos, in place of what was learned before; one step of the bank's history.

    The photos are those of this request, or of a folder that the operator allowed (``--photos``). The bank keeps sums
    by class, never a photo. Needs a server with a key, ``--bank``, and class statistics.
    """
    call = await read_json(request, service, LearnRequest)
    images = await read_images(service, call.images)
    kind = "embeddings" if call.images is None else "images"
    with service.lease() as engine:
        async with photo_features(request, service, engine, call, images) as features:
            if images and features.errors:
                number, error = features.errors[0]
                raise Problem(IMAGE_CODES[error.kind], f"images[{number}]: {error}")

            def learned(bank: ClassBank) -> tuple[Learn, LearningReport]:
                if service.engine is not engine:
                    raise overloaded("another bundle has been loaded meanwhile", BUSY_SECONDS)
                return engine.classifier.learn(features, bank=bank, all_known=call.all_known)

            report, etag = await service.change(lambda: service.store.learn(learned, if_match, dry_run=call.dry_run))
    errors = [{"key": key, "error": str(error)} for key, error in features.errors]
    content = asdict(report) | {"unreadable": features.unreadable, "errors": errors, "bank": etag}
    if call.folder is None:
        for photo in (*content["examples"], *content["look_first"]):
            photo["key"] = f"{kind}[{photo['key']}]"
    return JSONResponse(content, headers={"ETag": f'"{etag}"'})
