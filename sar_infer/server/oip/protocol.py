"""Open Inference Protocol v2: its messages, with the tensors behind them in Triton's binary tensor data extension.

A binary body is a JSON header, whose length ``Inference-Header-Content-Length`` gives, and then the data of each tensor
that has ``binary_data_size``, in order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from sar_infer.server.http.body import parse
from sar_infer.server.http.models import MAX_TOP_K, Mode
from sar_infer.server.oip.tensors import Input, Output
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

HEADER_LENGTH = "Inference-Header-Content-Length"
_MOST_NUMBERS = 2**19
"""Of tensors in JSON: three images of 224 pixels. They hold the event loop while they are read; binary ones do not."""
_FEW: Any = Field(max_length=16, fail_fast=True)
"""Inputs, outputs and dimensions; more is refused before it is read. The model has three or four of each."""


class InputParameters(BaseModel):
    """What is not named here is ignored."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = None
    shared_memory_region: str | None = Field(default=None, description="refused")


class InferInput(BaseModel):
    """One input tensor; ``data`` is flat or nested, row by row."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], _FEW]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class OutputParameters(BaseModel):
    """What is not named here is ignored."""

    binary_data: bool | None = None
    classification: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = Field(
        default=None, description="so many best classes, as text"
    )
    shared_memory_region: str | None = Field(default=None, description="refused")


class InferOutput(BaseModel):
    """One output that is asked for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InferParameters(BaseModel):
    """What is not named here is ignored."""

    mode: Mode | None = Field(default=None, description="default: extend where there is an input CLASSES, else bank")
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = Field(
        default=None, description="the best classes, best first"
    )
    binary_data_output: bool = False


class InferRequest(BaseModel):
    """A call of ``infer``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": [{"name": "IMAGE", "shape": [1], "datatype": "BYTES", "data": ["iVBORw0KGgo…"]}]}]
        }
    )

    id: str | None = None
    parameters: InferParameters = InferParameters()
    inputs: Annotated[list[InferInput], Field(min_length=1), _FEW]
    outputs: Annotated[list[InferOutput], _FEW] = []


class ResponseOutput(BaseModel):
    """One output tensor."""

    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, int] | None = None


class InferAnswer(BaseModel):
    """The answer to a call of ``infer``."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]


def read_request(body: bytes, header_length: str | None, limits: Limits) -> tuple[InferRequest, dict[str, Input]]:
    """A call and its input tensors by name.

    Args:
        body: JSON, perhaps with binary data behind it.
        header_length: Content of the header ``HEADER_LENGTH``; None says that there is no binary data.
        limits: What the call may hold.

    Raises:
        Problem: malformed, or binary data is missing or left over.
    """
    length = len(body)
    if header_length is not None:
        length = int(header_length) if header_length.isdecimal() and len(header_length) < 16 else -1
        if not 0 < length <= len(body):
            raise Problem(
                "bad-request",
                f"{HEADER_LENGTH}: expected the length of the JSON, 1 to {len(body)}, got {header_length!r:.40}",
            )
    asked = parse(InferRequest, body[:length], limits, _MOST_NUMBERS)
    tensors: dict[str, Input] = {}
    rest = memoryview(body)[length:]
    for given in asked.inputs:
        size = given.parameters.binary_data_size
        if given.name in tensors:
            raise Problem("invalid-request", f"input {given.name!r:.80} stands twice")
        tensor = Input(
            given.name, tuple(given.shape), given.datatype, rest[:size] if given.data is None else given.data
        )
        if given.parameters.shared_memory_region is not None:
            raise tensor.wrong("shared memory is not supported, send the data")
        if (size is None) == (given.data is None) or len(rest) < (size or 0):
            raise tensor.wrong("expected either data or binary_data_size, and as many bytes behind the JSON")
        rest = rest[size or 0 :]
        tensors[given.name] = tensor
    if rest:
        raise Problem("bad-request", f"{len(rest)} bytes of binary data belong to no input")
    return asked, tensors


def answer(outputs: Sequence[Output], **fields: str | None) -> Response:
    """The response that carries tensors.

    Args:
        outputs: In order.
        fields: Of the answer; those that are None are left out.
    """
    told = [output.describe() for output in outputs]
    content = {name: value for name, value in fields.items() if value is not None}
    header = json.dumps({**content, "outputs": [item for item, _ in told]}, ensure_ascii=False).encode()
    if not any(output.binary for output in outputs):
        return Response(header, media_type="application/json")
    body = b"".join([header, *(data for _, data in told)])
    return Response(body, headers={HEADER_LENGTH: str(len(header))}, media_type="application/octet-stream")
