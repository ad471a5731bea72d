"""``POST /v1/zero-shot-image-classification``: the task of that name in Hugging Face's API."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sar_infer.results import DecisionOptions
from sar_infer.server.asking import ask
from sar_infer.server.door import Door
from sar_infer.server.model.engine import values_of
from sar_infer.server.openapi import answer, problems, request_body
from sar_infer.server.problems import Problem
from sar_infer.server.request import LONGEST_TEXT, Bank, Serving, Texts, clean_name, cleaned, decoded, read_json

router = APIRouter(tags=["zero-shot-image-classification"])
_PLACE = "{}"


class ZeroShotParameters(BaseModel):
    """The labels, and how they are phrased; other fields are ignored."""

    candidate_labels: Annotated[Texts, Field(min_length=1)] | str = Field(description="a list, or text with commas")
    hypothesis_template: str | None = Field(
        None, max_length=LONGEST_TEXT, description="phrase with {} where the label goes"
    )
    multi_label: bool | None = Field(
        None, description="score each label by itself, as several of /v1/classify; needs a fitted class model"
    )


class ZeroShotRequest(BaseModel):
    """Hugging Face's request; other fields are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": "iVBORw0KGgo…", "parameters": {"candidate_labels": ["red mug", "tea pot"]}}]
        }
    )

    inputs: str = Field(description="the image in base64, or a data:image/…;base64,… URI")
    parameters: ZeroShotParameters


@router.post(
    "/v1/zero-shot-image-classification",
    responses={200: answer("ZeroShotElement[]"), **problems(401, 404, 422, 503, model="ErrorAnswer")},
    openapi_extra=request_body(ZeroShotRequest),
)
async def zero_shot(request: Request, service: Serving, bank: Bank = None) -> Response:
    """Rank the labels of the call for one image, the best first.

    A label goes through the learned prompt, unless the bank has a row for it. With a template, the filled template goes
    through the prompt instead of the label. Scores are a softmax over the labels; with multi_label each is a
    probability of its own.
    """
    call, limits = await read_json(request, service, ZeroShotRequest), service.settings.limits
    options = call.parameters
    labels = options.candidate_labels
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    if not labels:
        raise Problem("invalid-request", "parameters.candidate_labels: expected labels")
    template = _PLACE if options.hypothesis_template is None else options.hypothesis_template
    if _PLACE not in template:
        raise Problem("invalid-request", "parameters.hypothesis_template: expected text with {} where the label goes")
    cleaned(labels, limits)  # refuse labels that cannot be used, also those of which a template makes good phrases
    classes = cleaned({label: [template.replace(_PLACE, label)] for label in labels}, limits)
    spellings = {clean_name(label): label for label in reversed(labels)}
    several = DecisionOptions(several=bool(options.multi_label))
    outcomes = (await ask(service, [decoded(call.inputs)], [bank], classes, True, len(classes), several)).outcomes
    (result,) = values_of(outcomes, ["inputs"])
    content = [{"label": spellings[p.label], "score": p.score} for p in result.predictions]
    return Response(to_json(content), media_type="application/json")


DOOR = Door(
    "hugging-face", router, re.compile(r"/v1/zero-shot-image-classification(/|$)"), lambda of: {"error": of.detail}
)
