"""``POST /v1/embeddings``: OpenAI's protocol for class names, and for images in the way of infinity."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, to_json

from sar_infer.errors import ClassNameError
from sar_infer.server.model.engine import values_of
from sar_infer.server.openapi import answer, problems, request_body
from sar_infer.server.problems import Problem
from sar_infer.server.request import MOST_ITEMS, Serving, clean_name, read_images, read_json

router = APIRouter(tags=["embeddings"])
Modality = Literal["text", "image"]


class EmbeddingItem(BaseModel):
    """An input that names its kind: either text or image is given."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = None
    image: str | None = Field(None, description="base64, or a data:image/…;base64,… URI")


def _no_tokens(value: Any) -> Any:
    """Refuse token numbers and empty input with a plain message, which the types below would not give."""
    items = value if isinstance(value, list) else [value]
    if not items or value == "":
        raise PydanticCustomError("empty", "expected at least one text or image")
    if isinstance(items[0], int | float | list):
        raise PydanticCustomError("tokens", "expected text or images; token numbers are not accepted, send the text")
    return value


Items = Annotated[list[str | EmbeddingItem], Field(max_length=MOST_ITEMS, fail_fast=True)]


class EmbeddingsRequest(BaseModel):
    """OpenAI's request; other fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["red mug", "tea pot"], "model": "sar-clip"}]})

    input: Annotated[str | Items, BeforeValidator(_no_tokens)] = Field(
        description="one or several: class names, images (with modality image), or objects that name their kind"
    )
    model: str = Field("sar-clip", description="any name; it is repeated in the answer")
    modality: Modality = Field("text", description="kind of the strings in input")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: little-endian float32")
    dimensions: int | None = Field(None, description="only the model's own number")


@router.post(
    "/v1/embeddings",
    responses={200: answer("EmbeddingsAnswer"), **problems(401, 422, 503, model="OpenAIErrorAnswer")},
    openapi_extra=request_body(EmbeddingsRequest),
)
async def embeddings(request: Request, service: Serving) -> Response:
    """Return unit vectors of class names or images, in OpenAI's form; their dot products are cosines.

    A text is a class name and goes through the learned prompt. One bad input fails the whole call.
    """
    call = await read_json(request, service, EmbeddingsRequest)
    names, encoded = _inputs(call, service.settings.limits.classes)
    images = await read_images(service, [*encoded.values()])
    tokens = 0
    with service.lease() as engine:
        width = engine.bundle.manifest.embed_dim
        if call.dimensions not in (None, width):
            raise Problem("invalid-request", f"dimensions: expected {width}, the model's own, got {call.dimensions}")
        rows = np.empty((len(names) + len(encoded), width), "<f4")
        with service.images.hold(len(images)):
            if names:
                rows[[*names]], tokens = await engine.names.embed([*names.values()])
            if images:
                outcomes = await engine.line.each(images, lambda rows: rows)
                rows[[*encoded]] = values_of(outcomes, [f"input[{i}]" for i in encoded])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    encoded_as: Any = base64.b64encode if call.encoding_format == "base64" else np.ndarray.tolist
    data = [{"object": "embedding", "index": i, "embedding": encoded_as(row)} for i, row in enumerate(rows)]
    content = {"object": "list", "model": call.model, "usage": usage, "data": data}
    return Response(to_json(content), media_type="application/json")


def _inputs(call: EmbeddingsRequest, most: int) -> tuple[dict[int, str], dict[int, str]]:
    """Return the class names of a call, at most ``most``, and its images in base64, each by its place in the input.

    Raises:
        Problem: an input is of neither kind, or cannot be used; or there are too many names.
    """
    names, encoded = dict[int, str](), dict[int, str]()
    for i, item in enumerate([call.input] if isinstance(call.input, str) else call.input):
        one = EmbeddingItem(**{call.modality: item}) if isinstance(item, str) else item
        if (one.text is None) == (one.image is None):
            raise Problem("invalid-request", f"input[{i}]: expected either text or image")
        if one.image is not None:
            encoded[i] = one.image
        else:
            names[i] = one.text or ""
    if len(names) > most:
        raise Problem("too-many-classes", f"expected at most {most} texts in a request, got {len(names)}")
    for i, text in names.items():
        if text.startswith("data:image/"):
            raise Problem("invalid-request", f'input[{i}]: an image; add "modality": "image", or send {{"image": …}}')
        try:
            names[i] = clean_name(text)
        except ClassNameError as error:
            raise Problem("bad-class-name", f"input[{i}]: {error}") from None
    return names, encoded
