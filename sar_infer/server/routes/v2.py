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

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sar_infer import __version__
from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import bundle_name, default_bundle
from sar_infer.classifier import Classifier
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet
from sar_infer.server.model.banks import NAME
from sar_infer.server.model.engine import values_of
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
Row = dict[str, npt.NDArray[Any]]
"""The outputs for one image by name: float32, or bytes as objects."""


class TensorParameters(BaseModel):
    """Parameters of an input (size) or an output (whether it is binary); others are ignored."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = None
    binary_data: bool | None = None
    shared_memory_region: None = Field(default=None, description="refused")


class InferInput(BaseModel):
    """One input tensor; ``data`` is flat or nested, row by row."""

    name: Literal["IMAGE", "CLASSES"]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], _FEW]
    datatype: Literal["BYTES"]
    parameters: TensorParameters = TensorParameters()
    data: list[Any] | None = None


class InferOutput(BaseModel):
    """One requested output."""

    name: Literal["SCORES", "LABELS", "EMBEDDING"]
    parameters: TensorParameters = TensorParameters()


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


_UNKNOWN = problems(401, 404, 422, model="ErrorAnswer")
_READY = {**problems(model="ErrorAnswer"), 200: answer("Ready"), 503: answer("Ready", "Not ready.")}


@router.get("", responses={200: answer("ServerMetadata"), **problems(401, model="ErrorAnswer")})
async def server_metadata() -> Response:
    """Return name, version and extensions of the server."""
    extensions = ["binary_tensor_data", "parameters"]
    return JSONResponse({"name": "sar-clip", "version": __version__, "extensions": extensions})


@router.get("/health/live", responses={200: answer("Live"), **problems(model="ErrorAnswer")})
async def live() -> Response:
    """Answer as ``/healthz`` does."""
    return JSONResponse({"live": True})


@router.get("/health/ready", responses=_READY)
async def ready(service: Serving) -> Response:
    """Answer as ``/readyz`` does."""
    return await _readiness(service)


@router.get("/models/{model}/ready", responses={**_UNKNOWN, **_READY})
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
        **problems(401, 404, 422, 503, model="ErrorAnswer"),
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
        finish: Finish[Row] = _embedding
        count = 0
        with service.images.hold(len(images)):
            if any(output.name != "EMBEDDING" for output in call.outputs):
                (opened,) = await engine.banks.open(bank)
                classes, _ = await engine.class_set(opened, phrases, only)
                count = len(classes.names)
                if top_k is None and len(images) * count > _MOST_SCORES:
                    problem = f"{len(images)} × {count} scores are too many for one answer; ask for top_k"
                    raise Problem("invalid-request", problem)
                engine.decide(classes)  # refuses a call with only background classes
                finish = _ranking(engine.classifier, classes, top_k)
            outcomes = await engine.line.each(images, finish, count)
    rows = values_of(outcomes, [f"IMAGE[{i}]" for i in range(len(images))])
    for row in rows:
        if "SCORES" in row:
            service.metrics.top_score.observe(float(np.max(row["SCORES"])))
    return _answer(call, rows, model, engine.bundle.manifest.digest[:12])


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
    """Return a call with its images and its class names, each its own phrase.

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
    call.outputs = call.outputs or [InferOutput(name="SCORES"), InferOutput(name="LABELS")]
    elements, rest = dict[str, list[Any]](), memoryview(body)[length:]
    for tensor in call.inputs:
        size = tensor.parameters.binary_data_size or 0
        if tensor.name in elements:
            raise _wrong(tensor, "it is given twice")
        elements[tensor.name] = _elements(tensor, rest[:size], limits)
        rest = rest[size:]
    if rest:
        raise Problem("bad-request", f"{len(rest)} bytes of binary data belong to no input")
    if "IMAGE" not in elements:
        raise Problem("invalid-request", "inputs: expected IMAGE")
    try:
        names = [name.decode() if isinstance(name, bytes) else name for name in elements.get("CLASSES", ())]
    except UnicodeDecodeError:
        raise Problem("invalid-request", "input 'CLASSES': expected UTF-8") from None
    images = [decoded(image) if isinstance(image, str) else image for image in elements["IMAGE"]]
    return call, images, cleaned(names, limits)


def _elements(tensor: InferInput, binary: memoryview, limits: Limits) -> list[str] | list[bytes]:
    """Return the elements of an input: text of JSON, or bytes of the binary data after it."""
    size, (count, *more) = tensor.parameters.binary_data_size, tensor.shape or [0]
    if count < 1 or more not in ([], [1]):
        raise _wrong(tensor, f"expected shape [N] or [N, 1], got {tensor.shape!s:.80}")
    if tensor.name == "IMAGE":
        check_count(count, limits)
    if (size is None) == (tensor.data is None) or len(binary) != (size or 0):
        raise _wrong(tensor, "expected either data or binary_data_size, and as many bytes after the JSON")
    if tensor.data is not None:
        texts = [text for row in tensor.data for text in (row if isinstance(row, list) else (row,))]
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


def _wrong(tensor: InferInput, problem: str) -> Problem:
    return Problem("invalid-request", f"input {tensor.name!r}: {problem}")


def _embedding(rows: Floats) -> list[Row]:
    return [{"EMBEDDING": row} for row in rows]


def _ranking(classifier: Classifier, classes: ClassSet, top_k: int | None) -> Finish[Row]:
    """Return the function that makes of images (N, D) all outputs of each, without columns of background classes."""
    hidden = classes.background
    columns = np.arange(len(classes.names)) if hidden is None else np.flatnonzero(~hidden)
    names = np.array([name.encode() for name in classes.names], object)[columns]

    def finish(rows: Floats) -> Iterator[Row]:
        logits = classifier.logits(rows, classes)
        scores = classifier.scores(logits)[:, columns]
        best = np.broadcast_to(np.arange(len(columns)), scores.shape)
        if top_k is not None:
            best = ranking.top_k(logits[:, columns], top_k)
        for row, values, labels in zip(rows, np.take_along_axis(scores, best, axis=1), names[best], strict=True):
            yield {"EMBEDDING": row, "SCORES": values, "LABELS": labels}

    return finish


def _answer(call: InferRequest, rows: Sequence[Row], model: str, version: str) -> Response:
    """Return the response that carries the requested outputs, each with one row an image."""
    items, binary_data = list[dict[str, Any]](), list[bytes]()
    for output in call.outputs:
        kind, values = _OUTPUTS[output.name], np.array([row[output.name] for row in rows])
        item: dict[str, Any] = {"name": output.name, "datatype": kind, "shape": values.shape}
        binary = output.parameters.binary_data
        if call.parameters.binary_data_output if binary is None else binary:
            packed = (len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in values.flat)
            binary_data.append(values.astype("<f4").tobytes() if kind == "FP32" else b"".join(packed))
            item["parameters"] = {"binary_data_size": len(binary_data[-1])}
        else:
            item["data"] = values.ravel().tolist()
        items.append(item)
    named = {} if call.id is None else {"id": call.id}
    header = to_json({"model_name": model, "model_version": version, **named, "outputs": items})
    headers = {HEADER_LENGTH: str(len(header))} if binary_data else {}
    media_type = "application/octet-stream" if binary_data else "application/json"
    return Response(b"".join([header, *binary_data]), headers=headers, media_type=media_type)
