"""``/v2``: Open Inference Protocol v2 over HTTP, with Triton's binary tensor data extension.

Inputs: IMAGE, and CLASSES if the call has class names of its own. Outputs: SCORES and LABELS (N, C) whose
columns are the classes of the call, the bank's first, or (N, top_k) with the best first in each row; EMBEDDING (N, D).
Background classes take their share of the scores but have no column.

All inputs are BYTES. In JSON, data is a list, flat or nested, and BYTES are text. In binary, each BYTES element begins
with its length in four bytes, little-endian, and FP32 is little-endian floats. A binary body is a JSON header, whose
length ``Inference-Header-Content-Length`` gives, and then the data of each tensor that has ``binary_data_size``, in
order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sar_infer import __version__
from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import bundle_name, default_bundle
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet
from sar_infer.server.model.banks import NAME
from sar_infer.server.model.engine import Engine, values_of
from sar_infer.server.model.line import Finish, ImageInput
from sar_infer.server.openapi import BINARY, answer, problems, request_body
from sar_infer.server.problems import Problem
from sar_infer.server.request import MAX_TOP_K, Mode, Serving, check_count, chooses_only, cleaned, decoded, parse
from sar_infer.server.service import Service
from sar_infer.server.settings import Limits
from sar_infer.text.names import Phrases

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
Model = Annotated[
    str, Path(description="the name of the bundle's folder, sar-clip, or a bank of --banks", examples=["sar-clip"])
]
_ALIAS = "sar-clip"
"""A name that the model always has, in addition to that of its bundle's folder."""
_OUTPUTS = {"SCORES": "FP32", "LABELS": "BYTES", "EMBEDDING": "FP32"}
"""Datatypes by name."""
HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH_BYTES = 4
_MOST_SCORES = 2**18
_FEW: Any = Field(max_length=16, fail_fast=True)
"""Inputs, outputs and dimensions; more are refused before they are read. The model has three or four of each."""
Row = Floats | Sequence[bytes]
"""An output for one image: float32, or texts."""


class InputParameters(BaseModel):
    """Parameters of an input; others are ignored."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = None
    shared_memory_region: None = Field(default=None, description="refused")


class InferInput(BaseModel):
    """One input tensor; ``data`` is flat or nested, row by row."""

    name: Literal["IMAGE", "CLASSES"]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], _FEW]
    datatype: Literal["BYTES"]
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class OutputParameters(BaseModel):
    """Parameters of an output; others are ignored."""

    binary_data: bool | None = None
    shared_memory_region: None = Field(default=None, description="refused")


class InferOutput(BaseModel):
    """One requested output."""

    name: Literal["SCORES", "LABELS", "EMBEDDING"]
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


_UNKNOWN = problems(404, 422, model="ErrorAnswer")
_NOT_READY: dict[int | str, Any] = {503: answer("Ready", "Not ready.")}


@router.get("", responses={200: answer("ServerMetadata"), **problems(model="ErrorAnswer")})
async def server_metadata() -> Response:
    """Return name, version and extensions of the server."""
    extensions = ["binary_tensor_data", "parameters"]
    return JSONResponse({"name": "sar-clip", "version": __version__, "extensions": extensions})


@router.get("/health/live", responses={200: answer("Live")})
async def live() -> Response:
    """Answer as ``/healthz`` does."""
    return JSONResponse({"live": True})


@router.get("/health/ready", responses={200: answer("Ready"), **_NOT_READY})
async def ready(service: Serving) -> Response:
    """Answer as ``/readyz`` does."""
    return await _readiness(service)


@router.get("/models/{model}/ready", responses={**_UNKNOWN, 200: answer("Ready"), **_NOT_READY})
async def model_ready(service: Serving, model: Model) -> Response:
    """Answer as ``/readyz`` does, if the model is known."""
    await _bank(service, model)
    return await _readiness(service, name=model)


@router.get("/models/{model}", responses={200: answer("ModelMetadata"), **_UNKNOWN})
async def model_metadata(service: Serving, model: Model) -> Response:
    """Describe version, inputs and outputs; CLASSES may be left out."""
    await _bank(service, model)
    manifest = service.engine.bundle.manifest
    shapes = {"SCORES": [-1, -1], "LABELS": [-1, -1], "EMBEDDING": [-1, manifest.embed_dim]}
    inputs, outputs = (
        [{"name": name, "datatype": kind, "shape": shapes.get(name, [-1])} for name, kind in tensors.items()]
        for tensors in ({"IMAGE": "BYTES", "CLASSES": "BYTES"}, _OUTPUTS)
    )
    metadata = {"name": model, "versions": [manifest.digest[:12]], "platform": "onnx_onnxv1"}
    return JSONResponse(metadata | {"inputs": inputs, "outputs": outputs})


@router.post(
    "/models/{model}/infer",
    responses={
        200: {"content": answer("InferAnswer")["content"] | {"application/octet-stream": {"schema": BINARY}}},
        **problems(404, 422, 503, model="ErrorAnswer"),
    },
    openapi_extra=request_body(InferRequest, binary=("application/octet-stream",)),
)
async def infer(request: Request, service: Serving, model: Model) -> Response:
    """Classify or embed images; one bad image fails the whole call."""
    bank = await _bank(service, model)
    body, length, limits = await request.body(), request.headers.get(HEADER_LENGTH), service.settings.limits
    with service.lease() as engine:
        call, images, phrases = await service.in_turn(len(body), lambda: read_tensors(body, length, limits))
        top_k, only = call.parameters.top_k, chooses_only(call.parameters.mode, bool(phrases))
        classes, count = None, 0
        with service.images.hold(len(images)):
            if any(output.name != "EMBEDDING" for output in call.outputs):
                (opened,) = await engine.banks.open(bank)
                classes, _ = await engine.class_set(opened, phrases, only)
                count = len(classes.names)
                if top_k is None and len(images) * count > _MOST_SCORES:
                    problem = f"{len(images)} × {count} scores are too many for one answer; ask for top_k"
                    raise Problem("invalid-request", problem)
                engine.decide(classes)  # refuses a call with only background classes
            outcomes = await engine.line.each(images, _finisher(engine, classes, call.outputs, top_k), count)
    rows = values_of(outcomes, [f"IMAGE[{i}]" for i in range(len(images))])
    for best, _ in rows:
        if best is not None:
            service.metrics.top_score.observe(best)
    outputs = [*zip(*(values for _, values in rows), strict=True)]
    return _tensors(call, outputs, model, engine.bundle.manifest.digest[:12])


async def _readiness(service: Service, **fields: str) -> Response:
    readiness = await service.readiness()
    if readiness.ready:
        return JSONResponse({**fields, "ready": True})
    return JSONResponse({**fields, "ready": False, "error": readiness.reason}, 503, {"Retry-After": "2"})


async def _bank(service: Service, model: str) -> str | None:
    """Return the bank of --banks that a model is; None for the bundle with the bank of --bank.

    Raises:
        Problem: ``not-found``, or the bank cannot be used.
    """
    name = bundle_name(service.settings.bundle or default_bundle())
    if model in (name, _ALIAS):
        return None
    if service.settings.banks is None or not re.fullmatch(NAME, model):
        raise Problem("not-found", f"no model {model!r:.80}; expected {name} or {_ALIAS}")
    await service.engine.banks.open(model)
    return model


def read_tensors(
    body: bytes, header_length: str | None, limits: Limits
) -> tuple[InferRequest, Sequence[ImageInput], Phrases]:
    """Return a call with its images and its class names.

    Args:
        body: JSON, perhaps followed by binary data.
        header_length: Content of the header ``HEADER_LENGTH``; None if there is no binary data.
        limits: Limits of a call.

    Raises:
        Problem: malformed, binary data is missing or left over, or it asks for too much.
    """
    length = len(body)
    if header_length is not None:
        length = int(header_length) if header_length.isdecimal() and len(header_length) < 16 else -1
        if not 0 < length <= len(body):
            raise Problem(
                "bad-request",
                f"{HEADER_LENGTH}: expected the length of the JSON, 1 to {len(body)}, got {header_length!r:.40}",
            )
    call = parse(InferRequest, body[:length], limits)
    binary = _split(call, memoryview(body)[length:])
    call.outputs = call.outputs or [InferOutput(name="SCORES"), InferOutput(name="LABELS")]
    inputs = {tensor.name: tensor for tensor in call.inputs}
    if (image := inputs.get("IMAGE")) is None:
        raise Problem("invalid-request", "inputs: expected IMAGE")
    count, *more = image.shape or [0]
    if count < 1 or more not in ([], [1]):
        raise _wrong(image, f"expected shape [N] or [N, 1], got {image.shape!s:.80}")
    check_count(count, limits)
    images = [decoded(item) if isinstance(item, str) else item for item in _values(image, binary["IMAGE"])]
    return call, images, _phrases(inputs["CLASSES"], binary, limits) if "CLASSES" in inputs else {}


def _phrases(classes: InferInput, binary: Mapping[str, memoryview], limits: Limits) -> Phrases:
    """Return the class names of a call, each its own phrase."""
    if len(classes.shape) != 1 or classes.shape[0] < 1:
        raise _wrong(classes, f"expected shape [C], got {classes.shape!s:.80}")
    if classes.shape[0] > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} class names, got {classes.shape[0]}")
    try:
        texts = [item if isinstance(item, str) else item.decode() for item in _values(classes, binary["CLASSES"])]
    except UnicodeDecodeError:
        raise _wrong(classes, "expected UTF-8") from None
    return cleaned(texts, limits)


def _split(call: InferRequest, rest: memoryview) -> dict[str, memoryview]:
    """Return the binary data of each input by its name, in order and to the last byte."""
    for kind, tensors in (("input", call.inputs), ("output", call.outputs)):
        names = [tensor.name for tensor in tensors]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise Problem("invalid-request", f"{kind} {twice!r} is given twice")
    binary: dict[str, memoryview] = {}
    for tensor in call.inputs:
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None) or len(rest) < (size or 0):
            raise _wrong(tensor, "expected either data or binary_data_size, and as many bytes after the JSON")
        binary[tensor.name], rest = rest[: size or 0], rest[size or 0 :]
    if rest:
        raise Problem("bad-request", f"{len(rest)} bytes of binary data belong to no input")
    return binary


def _wrong(tensor: InferInput, problem: str) -> Problem:
    return Problem("invalid-request", f"input {tensor.name!r}: {problem}")


def _values(tensor: InferInput, binary: memoryview) -> list[bytes] | list[str]:
    """Return the elements of an input: bytes of binary data, or text of JSON."""
    count, texts = math.prod(tensor.shape), tensor.data
    if texts is not None:
        if texts and all(isinstance(row, list) for row in texts):
            texts = [text for row in texts for text in row]
        if len(texts) != count or not all(isinstance(text, str) for text in texts):
            raise _wrong(tensor, f"expected {count} texts for shape {tensor.shape!s:.80}, flat or nested")
        return texts
    elements, end = list[bytes](), 0
    for _ in range(count):
        start = end + _LENGTH_BYTES
        end = start + int.from_bytes(binary[end:start], "little")
        if max(start, end) > len(binary):
            raise _wrong(tensor, f"the data ends before {count} elements, each after its length in 4 bytes")
        elements.append(bytes(binary[start:end]))
    if end != len(binary):
        raise _wrong(tensor, f"{len(binary) - end} bytes are left after {count} elements")
    return elements


def _finisher(
    engine: Engine, classes: ClassSet | None, outputs: Sequence[InferOutput], top_k: int | None
) -> Finish[tuple[float | None, Sequence[Row]]]:
    """Return the function that makes of images (N, D) their best scores, and rows of each output."""
    if classes is None:  # only the embedding is wanted
        return lambda rows: [(None, [row]) for row in rows]
    classifier, hidden = engine.classifier, classes.background
    answers = slice(None) if hidden is None else ~hidden
    names = tuple(name.encode() for i, name in enumerate(classes.names) if hidden is None or not hidden[i])

    def finish(rows: Floats) -> Iterator[tuple[float, Sequence[Row]]]:
        logits = classifier.logits(rows, classes)
        scores = classifier.scores(logits)[:, answers]
        logits = logits[:, answers]
        values = zip(*(tensor(output, rows, logits, scores) for output in outputs), strict=True)
        return zip(scores.max(axis=1).tolist(), values, strict=True)

    def tensor(output: InferOutput, rows: Floats, logits: Floats, scores: Floats) -> Iterable[Row]:
        if output.name == "EMBEDDING":
            return rows
        if top_k is None:
            return scores if output.name == "SCORES" else [names] * len(rows)
        best = ranking.top_k(logits, top_k)
        if output.name == "SCORES":
            return np.take_along_axis(scores, best, axis=1)
        return [[names[i] for i in columns] for columns in best]

    return finish


def _tensors(call: InferRequest, outputs: Sequence[Sequence[Row]], model: str, version: str) -> Response:
    """Return the response that carries the requested outputs, each with one row an image, all of equal length."""
    items, binary_data = list[dict[str, Any]](), list[bytes]()
    for output, rows in zip(call.outputs, outputs, strict=True):
        kind, values = _OUTPUTS[output.name], [value for row in rows for value in row]
        item: dict[str, Any] = {"name": output.name, "datatype": kind, "shape": [len(rows), len(rows[0])]}
        binary = output.parameters.binary_data
        if call.parameters.binary_data_output if binary is None else binary:
            packed = (len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in values)
            binary_data.append(np.array(rows, "<f4").tobytes() if kind == "FP32" else b"".join(packed))
            item["parameters"] = {"binary_data_size": len(binary_data[-1])}
        else:
            item["data"] = [value.decode() if isinstance(value, bytes) else float(value) for value in values]
        items.append(item)
    named = {} if call.id is None else {"id": call.id}
    header = to_json({"model_name": model, "model_version": version, **named, "outputs": items})
    headers = {HEADER_LENGTH: str(len(header))} if binary_data else {}
    media_type = "application/octet-stream" if binary_data else "application/json"
    return Response(b"".join([header, *binary_data]), headers=headers, media_type=media_type)
