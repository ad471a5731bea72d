"""PhotoPrism's service of labels: ``POST /api/v1/vision/labels``.

The images of a request are thumbnails of one photo, so their labels are merged: each label with its largest score.
"""

from __future__ import annotations

import re
import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sar_infer import __version__
from sar_infer.results import DecisionOptions, ImageResult
from sar_infer.server.asking import ask
from sar_infer.server.door import Door
from sar_infer.server.model.engine import values_of
from sar_infer.server.openapi import answer, problems, request_body
from sar_infer.server.problems import Problem
from sar_infer.server.request import Bank, Serving, Texts, read_images, read_json

router = APIRouter(tags=["PhotoPrism labels"])
_MOST_LABELS = 10


class LabelsRequest(BaseModel):
    """PhotoPrism's request; other fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"images": ["data:image/jpeg;base64,/9j/4AAQ…"]}]})

    id: str | None = Field(None, max_length=256, description="repeated in the answer")
    images: Texts = Field(min_length=1, description="thumbnails of one photo: data:image/…;base64,… URIs")
    url: Literal[""] | None = Field(None, description="refused: URLs are not fetched")


@router.post(
    "/api/v1/vision/labels",
    responses={200: answer("VisionAnswer"), **problems(401, 404, 422, 503, model="ErrorAnswer")},
    openapi_extra=request_body(LabelsRequest),
)
async def labels(
    request: Request,
    service: Serving,
    bank: Bank = None,
    several: Annotated[bool, Query(description="label each class that the photo shows")] = False,
) -> Response:
    """Return the labels of a photo, the best first; none if it is unknown."""
    call = await read_json(request, service, LabelsRequest)
    images = await read_images(service, call.images)
    options = DecisionOptions(several=True) if several else None
    asked = await ask(service, images, [bank], top_k=_MOST_LABELS, options=options)
    scores = dict[str, float]()
    for result in values_of(asked.outcomes, [f"images[{i}]" for i in range(len(images))]):
        for name, score in _labels(result):
            scores[name] = max(score, scores.get(name, 0))
    best = sorted(scores.items(), key=lambda one: -one[1])
    content = {
        "id": call.id or str(uuid.uuid4()),
        "code": 200,
        "model": {"name": "sar-clip", "version": __version__},
        "result": {"labels": [{"name": name, "source": "image", "confidence": score} for name, score in best]},
    }
    return Response(to_json(content), media_type="application/json")


def _labels(result: ImageResult) -> list[tuple[str, float]]:
    """Return the labels of one thumbnail: those that it shows, or the best class."""
    if result.labels is not None:
        return [(one.label, one.score) for one in result.labels]
    return [(one.label, one.score) for one in result.predictions[:1]]


def _error(problem: Problem) -> dict[str, object]:
    return {"code": problem.status, "error": problem.detail}


DOOR = Door("photoprism", router, re.compile(r"/api/v1/vision(/|$)"), _error)
