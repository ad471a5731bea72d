"""The messages and tensors of Open Inference Protocol v2, in JSON and in Triton's binary tensor data extension.

All inputs are BYTES. In JSON, data is a list, flat or nested, and BYTES are text. In binary, each BYTES element begins
with its length in four bytes, little-endian, and FP32 is little-endian floats. A binary body is a JSON header, whose
length ``Inference-Header-Content-Length`` gives, and then the data of each tensor that has ``binary_data_size``, in
order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response
from typing_extensions import NotRequired, Required, TypedDict  # noqa: UP035 - pydantic's, below Python 3.12

from sar_infer._arrays import Floats
from sar_infer.server.http.request import MAX_TOP_K, Mode, parse
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH_BYTES = 4
Row = Floats | Sequence[bytes]
"""An output for one image: float32, or texts."""
_FEW: Any = Field(max_length=16, fail_fast=True)
"""Inputs, outputs and dimensions; more are refused before they are read. The model has three or four of each."""


class InputParameters(BaseModel):
    """Parameters of an input; others are ignored."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = None
    shared_memory_region: str | None = Field(default=None, description="refused")


class InferInput(BaseModel):
    """One input tensor; ``data`` is flat or nested, row by row."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], _FEW]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None
    _binary: memoryview | None = None

    def take_binary(self, data: memoryview) -> memoryview:
        """Take this input's share of the data that follows the JSON, and return what is left for the next input.

        Raises:
            Problem: it is to come from shared memory, comes twice or not at all, or is shorter than the input says.
        """
        size = self.parameters.binary_data_size
        if self.parameters.shared_memory_region is not None:
            raise self.wrong("shared memory is not supported, send the data")
        if (size is None) == (self.data is None) or len(data) < (size or 0):
            raise self.wrong("expected either data or binary_data_size, and as many bytes after the JSON")
        if size is None:
            return data
        self._binary = data[:size]
        return data[size:]

    def values(self) -> list[bytes] | list[str]:
        """Return the elements: bytes of binary data, or text of JSON.

        Raises:
            Problem: They do not fit the shape, or one is no text.
        """
        count, texts = math.prod(self.shape), self.data
        if texts is None:
            return list(self._prefixed(self._binary or memoryview(b""), count))
        if texts and all(isinstance(row, list) for row in texts):
            texts = [text for row in texts for text in row]
        if len(texts) != count or not all(isinstance(text, str) for text in texts):
            raise self.wrong(f"expected {count} texts for shape {self.shape!s:.80}, flat or nested")
        return texts

    def wrong(self, problem: str) -> Problem:
        """Return the problem that something is wrong with this input."""
        return Problem("invalid-request", f"input {self.name!r:.80}: {problem}")

    def _prefixed(self, data: memoryview, count: int) -> Iterator[bytes]:
        end = 0
        for _ in range(count):
            start = end + _LENGTH_BYTES
            end = start + int.from_bytes(data[end:start], "little")
            if max(start, end) > len(data):
                raise self.wrong(f"the data ends before {count} elements, each after its length in 4 bytes")
            yield bytes(data[start:end])
        if end != len(data):
            raise self.wrong(f"{len(data) - end} bytes are left after {count} elements")


class OutputParameters(BaseModel):
    """Parameters of an output; others are ignored."""

    binary_data: bool | None = None
    shared_memory_region: str | None = Field(default=None, description="refused")


class InferOutput(BaseModel):
    """One requested output."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InferParameters(BaseModel):
    """Parameters of a call; others are ignored."""

    mode: Mode | None = Field(default=None, description="default: extend if there is an input CLASSES, else bank")
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = Field(
        default=None, description="return this many classes, the best first"
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


class ResponseOutput(TypedDict, total=False):
    """One output tensor, with ``data`` unless it is binary."""

    name: Required[str]
    datatype: Required[Literal["BYTES", "FP32"]]
    shape: Required[list[int]]
    data: list[Any]
    parameters: dict[str, int]


class InferAnswer(TypedDict):
    """The answer to a call of ``infer``."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[ResponseOutput]


def read_request(body: bytes, header_length: str | None, limits: Limits) -> InferRequest:
    """Return a call, whose inputs have their data.

    Args:
        body: JSON, perhaps followed by binary data.
        header_length: Content of the header ``HEADER_LENGTH``; None if there is no binary data.
        limits: Limits of a call.

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
    request = parse(InferRequest, body[:length], limits)
    for kind, tensors in (("input", request.inputs), ("output", request.outputs)):
        names = [tensor.name for tensor in tensors]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise Problem("invalid-request", f"{kind} {name!r:.80} is given twice")
    rest = memoryview(body)[length:]
    for tensor in request.inputs:
        rest = tensor.take_binary(rest)
    if rest:
        raise Problem("bad-request", f"{len(rest)} bytes of binary data belong to no input")
    return request


def answer(request: InferRequest, outputs: Sequence[Sequence[Row]], model_name: str, model_version: str) -> Response:
    """Return the response that carries tensors.

    Args:
        request: The call, which says how each is sent.
        outputs: The requested outputs, each with one row an image, all of equal length.
        model_name: As in the call.
        model_version: The version that answers.
    """
    items, binary_data = list[ResponseOutput](), list[bytes]()
    for output, rows in zip(request.outputs, outputs, strict=True):
        is_number = isinstance(rows[0], np.ndarray)
        item = ResponseOutput(
            name=output.name, datatype="FP32" if is_number else "BYTES", shape=[len(rows), len(rows[0])]
        )
        binary = output.parameters.binary_data
        if request.parameters.binary_data_output if binary is None else binary:
            binary_data.append(b"".join(map(_packed, rows)))
            item["parameters"] = {"binary_data_size": len(binary_data[-1])}
        else:
            values = [value for row in rows for value in row]
            item["data"] = [value.decode() if isinstance(value, bytes) else float(value) for value in values]
        items.append(item)
    content = InferAnswer(model_name=model_name, model_version=model_version, outputs=items)
    if request.id is not None:
        content["id"] = request.id
    header = to_json(content)
    headers = {HEADER_LENGTH: str(len(header))} if binary_data else {}
    media_type = "application/octet-stream" if binary_data else "application/json"
    return Response(b"".join([header, *binary_data]), headers=headers, media_type=media_type)


def _packed(row: Row) -> bytes:
    if isinstance(row, np.ndarray):
        return row.astype("<f4", copy=False).tobytes()
    return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in row)
