"""Azure Custom Vision, prediction 3.1: the routes of the service, and those of its exported container.

The published name is a bank of ``--banks``, or stands for the one there is. A tag is a class; an unknown image has one
prediction, the *Negative* tag. Ids are made of names and contents, so that a class keeps its id.
"""

from __future__ import annotations

import datetime
import re
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from sar_infer.server.asking import ask
from sar_infer.server.door import Door
from sar_infer.server.model.banks import NAME
from sar_infer.server.model.engine import values_of
from sar_infer.server.openapi import answer, form, problems, request_body
from sar_infer.server.problems import Problem
from sar_infer.server.request import BYTES, Serving, read_image
from sar_infer.server.service import Service

router = APIRouter(tags=["Custom Vision prediction"])
_FIELD = "imageData"
_NO_PROJECT = uuid.UUID(int=0)
_MOST_TAGS = 500
"""Tags of a project, at most."""
_MODELS = [f"{base}/{{project}}/classify/iterations/{{name}}" for base in ("/customvision/v3.1/prediction", "")]
_CODES = {
    "unauthorised": "Forbidden",
    "not-found": "NotFound",
    "body-too-large": "BadRequestImageSizeBytes",
    "image-too-large": "BadRequestImageDimensions",
    "unsupported-media-type": "UnsupportedMediaType",
    "unsupported-format": "BadRequestImageFormat",
    "undecodable-image": "BadRequestImageStream",
}
"""``CustomVisionErrorCodes`` by codes of problems; others are ``BadRequest``, or ``ErrorUnknown`` from 500 on."""


class ImageUrl(BaseModel):
    """An image elsewhere, which is refused."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"url": "https://shop.example/mug.jpg"}]})

    url: str


_ERRORS = problems(401, 404, 422, 503, model="CustomVisionError")
_IMAGE: Any = {
    "responses": {200: answer("ImagePrediction"), **_ERRORS},
    "openapi_extra": request_body(None, form(_FIELD), binary=(BYTES,)),
}


async def classify(request: Request, service: Serving, project: uuid.UUID, name: str) -> Response:
    """Classify one image by the bank behind a published name."""
    bank = None
    if service.settings.banks is not None:
        if not re.fullmatch(NAME, name):
            raise Problem("not-found", f"no bank {name!r:.80}; a published name is a bank of --banks")
        bank = name
    return await _predict(request, service, project, bank)


@router.post("/image", **_IMAGE)
async def classify_here(request: Request, service: Serving) -> Response:
    """Classify one image, as an exported container does."""
    return await _predict(request, service, _NO_PROJECT, None)


async def refuse_url() -> Response:
    """Refuse an image that would have to be fetched."""
    raise Problem("bad-request", "URLs are not fetched; send the image itself to …/image")


for _model in _MODELS:
    for _end in ("", "/nostore"):
        router.post(f"{_model}/image{_end}", **_IMAGE)(classify)
for _path in ("/url", *(f"{_model}/url{_end}" for _model in _MODELS for _end in ("", "/nostore"))):
    router.post(_path, responses=_ERRORS, openapi_extra=request_body(ImageUrl))(refuse_url)


async def _predict(request: Request, service: Service, project: uuid.UUID, bank: str | None) -> Response:
    image = await read_image(request, service.settings.limits, _FIELD)
    outcomes, [(_, digest)], _ = await ask(service, [image], [bank], top_k=_MOST_TAGS, options=None)
    (result,) = values_of(outcomes, ["image"])
    tags = [_tag(one.label, one.score) for one in result.predictions]
    content = {
        "id": str(uuid.uuid4()),
        "project": str(project),
        "iteration": _id("bank", digest),
        "created": datetime.datetime.now(datetime.UTC).isoformat(),
        "predictions": tags or [_tag("Negative", result.unknown, "Negative")],
    }
    return Response(to_json(content), media_type="application/json")


def _tag(name: str, probability: float | None, kind: str = "Regular") -> dict[str, Any]:
    tag = {"probability": probability, "tagId": _id(kind, name), "tagName": name}
    return {**tag, "boundingBox": None, "tagType": kind}


def _id(kind: str, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:sar-clip:{kind}:{name}"))


def _error(problem: Problem) -> dict[str, str]:
    code = _CODES.get(problem.code, "BadRequest" if problem.status < 500 else "ErrorUnknown")
    return {"code": code, "message": problem.detail}


DOOR = Door(
    "custom-vision",
    router,
    re.compile(r"/customvision/|/(image|url)$|/[^/]+/classify/iterations/"),
    _error,
    key_header="Prediction-Key",
)
