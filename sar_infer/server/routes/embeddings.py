"""``POST /v1/embeddings``: OpenAI's protocol for class names, and for images in the way of infinity."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from sar_infer.errors import ClassNameError
from sar_infer.server.class_names import clean_name
from sar_infer.server.http.body import read_images, read_json
from sar_infer.server.http.openapi import problems, request_body
from sar_infer.server.http.request import MOST_ITEMS, Serving
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

router = APIRouter(tags=["embeddings"])
_PAUSE_EVERY = 32
"""Rows after which other requests have their turn: a thousand rows take a quarter of a second as JSON."""
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


class Embedding(BaseModel):
    """The unit vector of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """The number of tokens of the class names; images have none."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class OpenAIError(BaseModel):
    """The content of OpenAI's error."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorAnswer(BaseModel):
    """OpenAI's error."""

    error: OpenAIError


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsAnswer,
    responses=problems(422, 503, model=OpenAIErrorAnswer),
    openapi_extra=request_body(EmbeddingsRequest),
)
async def embeddings(request: Request, service: Serving) -> Response:
    """Return unit vectors of class names or images, in OpenAI's form; their dot products are cosines.

    A text is a class name and goes through the learned prompt. One bad input fails the whole call.
    """
    call = await read_json(request, service, EmbeddingsRequest)
    items = [call.input] if isinstance(call.input, str) else call.input
    inputs = [_item(value, call.modality, i) for i, value in enumerate(items)]
    names = _names(inputs, service.settings.limits)
    images = await read_images(service, [value for kind, value in inputs if kind == "image"])
    labels = [f"input[{i}]" for i, (kind, _) in enumerate(inputs) if kind == "image"]
    with service.lease() as engine:
        width = engine.bundle.manifest.embed_dim
        if call.dimensions not in (None, width):
            raise Problem("invalid-request", f"dimensions: expected {width}, the model's own, got {call.dimensions}")
        with service.admission.images.hold(len(images)):
            text_rows, tokens = await engine.names.embed(names) if names else ((), 0)
            image_rows = await engine.all_of(images, lambda rows: rows, labels)
    rows = {"text": iter(text_rows), "image": iter(image_rows)}
    data: list[str] = []
    for i, (kind, _) in enumerate(inputs):
        packed = np.ascontiguousarray(next(rows[kind]), dtype="<f4")
        base64_text = call.encoding_format == "base64"
        embedding = base64.b64encode(packed.tobytes()).decode() if base64_text else packed.tolist()
        data.append(json.dumps({"object": "embedding", "index": i, "embedding": embedding}))
        if i % _PAUSE_EVERY == 0:
            await asyncio.sleep(0)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    rest = json.dumps({"object": "list", "model": call.model, "usage": usage}, ensure_ascii=False)
    return Response(f'{rest[:-1]}, "data": [{", ".join(data)}]}}', media_type="application/json")


def _item(value: str | EmbeddingItem, modality: Modality, index: int) -> tuple[Modality, str]:
    if isinstance(value, str):
        return modality, value
    if value.text is not None and value.image is None:
        return "text", value.text
    if value.image is not None and value.text is None:
        return "image", value.image
    raise Problem("invalid-request", f"input[{index}]: expected either text or image")


def _names(inputs: Sequence[tuple[Modality, str]], limits: Limits) -> list[str]:
    """Return the class names of the input, cleaned."""
    texts = [(i, text) for i, (kind, text) in enumerate(inputs) if kind == "text"]
    if len(texts) > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} texts in a request, got {len(texts)}")
    names = []
    for i, text in texts:
        if text.startswith("data:image/"):
            raise Problem("invalid-request", f'input[{i}]: an image; add "modality": "image", or send {{"image": …}}')
        try:
            names.append(clean_name(text))
        except ClassNameError as error:
            raise Problem("bad-class-name", f"input[{i}]: {error}") from None
    return names
