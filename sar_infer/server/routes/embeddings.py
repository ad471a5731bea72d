"""``POST /v1/embeddings``: OpenAI's protocol for class names, and for images in the way of infinity."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from sar_infer._arrays import Floats
from sar_infer.errors import ClassNameError
from sar_infer.server.class_names import clean_name
from sar_infer.server.http.body import read_images, read_json
from sar_infer.server.http.openapi import problems, request_body
from sar_infer.server.http.request import MOST_ITEMS, Serving
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

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
    encoded = {i: value for i, (kind, value) in enumerate(inputs) if kind == "image"}
    images = await read_images(service, [*encoded.values()])
    unit_rows: dict[int, Floats] = {}
    tokens = 0
    with service.lease() as engine:
        width = engine.bundle.manifest.embed_dim
        if call.dimensions not in (None, width):
            raise Problem("invalid-request", f"dimensions: expected {width}, the model's own, got {call.dimensions}")
        with service.admission.images.hold(len(images)) if images else contextlib.nullcontext():
            if names:
                rows, tokens = await engine.names.embed(list(names.values()))
                unit_rows.update(zip(names, rows, strict=True))
            labels = [f"input[{i}]" for i in encoded]
            unit_rows.update(zip(encoded, await engine.all_of(images, lambda rows: rows, labels), strict=True))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    rest = json.dumps({"object": "list", "model": call.model, "usage": usage}, ensure_ascii=False)
    data = [item async for item in _data([unit_rows[i] for i in range(len(inputs))], call.encoding_format)]
    return Response(f'{rest[:-1]}, "data": [{", ".join(data)}]}}', media_type="application/json")


async def _data(rows: Sequence[Floats], form: Literal["float", "base64"]) -> AsyncIterator[str]:
    """Yield the items of ``data`` as JSON, and pause now and then: a thousand rows take a quarter of a second."""
    for i, row in enumerate(rows):
        packed = np.ascontiguousarray(row, dtype="<f4")
        content = base64.b64encode(packed.tobytes()).decode() if form == "base64" else packed.tolist()
        yield json.dumps({"object": "embedding", "index": i, "embedding": content})
        if i % 32 == 31:
            await asyncio.sleep(0)


def _item(value: str | EmbeddingItem, modality: Modality, index: int) -> tuple[Modality, str]:
    if isinstance(value, str):
        return modality, value
    if value.text is not None and value.image is None:
        return "text", value.text
    if value.image is not None and value.text is None:
        return "image", value.image
    raise Problem("invalid-request", f"input[{index}]: expected either text or image")


def _names(inputs: Sequence[tuple[Modality, str]], limits: Limits) -> dict[int, str]:
    """Return the class names by their place in the input."""
    texts = {i: value for i, (kind, value) in enumerate(inputs) if kind == "text"}
    if len(texts) > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} texts in a request, got {len(texts)}")
    for i, text in texts.items():
        if text.startswith("data:image/"):
            raise Problem("invalid-request", f'input[{i}]: an image; add "modality": "image", or send {{"image": …}}')
        try:
            texts[i] = clean_name(text)
        except ClassNameError as error:
            raise Problem("bad-class-name", f"input[{i}]: {error}") from None
    return texts
