"""The messages and tensors of Open Inference Protocol v2, in JSON and in Triton's binary tensor data extension.

In JSON, data is a list, flat or nested, row by row; BYTES are text. In binary, FP32 is little-endian floats, and each
BYTES element begins with its length in four bytes, little-endian. A binary body is a JSON header, whose length
``Inference-Header-Content-Length`` gives, and then the data of each tensor that has ``binary_data_size``, in order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from sar_infer._arrays import Floats
from sar_infer.server.http.request import MAX_TOP_K, Mode, parse
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

HEADER_LENGTH = "Inference-Header-Content-Length"
_MOST_NUMBERS = 2**19
"""Numbers of tensors in JSON, enough for three images of 224 pixels: reading them blocks the event loop."""
_LENGTH_BYTES = 4
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


class OutputParameters(BaseModel):
    """Parameters of an output; others are ignored."""

    binary_data: bool | None = None
    classification: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = Field(
        default=None, description="return this many of the best classes, as text"
    )
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


@dataclass(frozen=True)
class Input:
    """An input tensor; its data is a JSON list or binary, as received and not yet checked against its shape."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | memoryview

    @property
    def count(self) -> int:
        """Return the number of elements of the shape."""
        return math.prod(self.shape)

    def floats(self) -> Floats:
        """Return FP32 data in its shape.

        Raises:
            Problem: the data does not fit the shape, or an element is not a finite number.
        """
        if isinstance(self.data, memoryview):
            self._check_count(len(self.data) / 4)
            values = np.frombuffer(self.data, "<f4")
        else:
            elements = self._elements(self.data, {int, float})
            try:
                with np.errstate(over="ignore"):
                    values = elements.astype(np.float32)
            except OverflowError:
                raise self.wrong("expected finite numbers") from None
        if not np.isfinite(values).all():
            raise self.wrong("expected finite numbers")
        return values.astype(np.float32, copy=False).reshape(self.shape)

    def elements(self) -> list[bytes] | list[str]:
        """Return BYTES data in row order: bytes from binary data, text from JSON.

        Raises:
            Problem: the data does not fit the shape, or an element is not text.
        """
        if isinstance(self.data, memoryview):
            return list(self._prefixed(self.data))
        texts: list[str] = self._elements(self.data, {str}).ravel().tolist()
        return texts

    def wrong(self, problem: str) -> Problem:
        """Return the problem that something is wrong with this input."""
        return Problem("invalid-request", f"input {self.name!r:.80}: {problem}")

    def _check_count(self, count: float) -> None:
        if count != self.count:
            raise self.wrong(f"expected {self.count} elements for shape {list(self.shape)!s:.80}, got {count:g}")

    def _elements(self, data: list[Any], kinds: set[type]) -> npt.NDArray[np.object_]:
        """Return the elements of JSON data that is flat, or nested as the shape says."""
        elements = np.array(data, dtype=object)  # of lists of unequal length it makes an array of lists
        if elements.ndim > 1 and elements.shape != self.shape:
            raise self.wrong(f"expected data that is flat, or nested as shape {list(self.shape)!s:.80}")
        self._check_count(elements.size)
        if not set(map(type, elements.flat)) <= kinds:
            raise self.wrong(f"expected {'text' if str in kinds else 'numbers'} only, flat or nested as the shape")
        return elements

    def _prefixed(self, data: memoryview) -> Iterator[bytes]:
        at = 0
        for _ in range(self.count):
            start = at + _LENGTH_BYTES
            at = start + int.from_bytes(data[at:start], "little")
            if max(start, at) > len(data):
                raise self.wrong(f"the data ends before {self.count} elements, each after its length in 4 bytes")
            yield bytes(data[start:at])
        if at != len(data):
            raise self.wrong(f"{len(data) - at} bytes are left after {self.count} elements")


@dataclass(frozen=True)
class Output:
    """An output tensor: float32 (N, …), or N rows of text of equal length; ``binary`` says how it is sent."""

    name: str
    values: Floats | Sequence[Sequence[bytes]]
    binary: bool

    def describe(self) -> tuple[dict[str, Any], bytes]:
        """Return its entry in the JSON of the answer, and the binary data that follows, if any."""
        values = self.values
        if isinstance(values, np.ndarray):
            item: dict[str, Any] = {"name": self.name, "datatype": "FP32", "shape": list(values.shape)}
            if not self.binary:
                return {**item, "data": values.reshape(-1).tolist()}, b""
            data = np.ascontiguousarray(values, dtype="<f4").tobytes()
        else:
            item = {"name": self.name, "datatype": "BYTES", "shape": [len(values), len(values[0])]}
            texts = [text for row in values for text in row]
            if not self.binary:
                return {**item, "data": [text.decode() for text in texts]}, b""
            data = b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in texts)
        return {**item, "parameters": {"binary_data_size": len(data)}}, data


def read_request(body: bytes, header_length: str | None, limits: Limits) -> tuple[InferRequest, dict[str, Input]]:
    """Return a call and its input tensors by name.

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
    request = parse(InferRequest, body[:length], limits, _MOST_NUMBERS)
    tensors: dict[str, Input] = {}
    rest = memoryview(body)[length:]
    for item in request.inputs:
        size = item.parameters.binary_data_size
        if item.name in tensors:
            raise Problem("invalid-request", f"input {item.name!r:.80} is given twice")
        tensor = Input(item.name, tuple(item.shape), item.datatype, rest[:size] if item.data is None else item.data)
        if item.parameters.shared_memory_region is not None:
            raise tensor.wrong("shared memory is not supported, send the data")
        if (size is None) == (item.data is None) or len(rest) < (size or 0):
            raise tensor.wrong("expected either data or binary_data_size, and as many bytes after the JSON")
        rest = rest[size or 0 :]
        tensors[item.name] = tensor
    if rest:
        raise Problem("bad-request", f"{len(rest)} bytes of binary data belong to no input")
    return request, tensors


def answer(outputs: Sequence[Output], **fields: str | None) -> Response:
    """Return the response that carries tensors.

    Args:
        outputs: In order.
        fields: Other fields of the answer; those that are None are left out.
    """
    described = [output.describe() for output in outputs]
    content = {name: value for name, value in fields.items() if value is not None}
    header = json.dumps({**content, "outputs": [item for item, _ in described]}, ensure_ascii=False).encode()
    if not any(output.binary for output in outputs):
        return Response(header, media_type="application/json")
    body = b"".join([header, *(data for _, data in described)])
    return Response(body, headers={HEADER_LENGTH: str(len(header))}, media_type="application/octet-stream")
