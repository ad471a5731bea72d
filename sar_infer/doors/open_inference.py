"""``/v2``: Open Inference Protocol v2 over HTTP, in JSON.

Inputs: IMAGE, and CLASSES if the call has class names of its own. Outputs: SCORES and LABELS (N, C) whose
columns are the classes of the call, the bank's first, or (N, top_k) with the best first in each row; EMBEDDING (N, D).
Background classes take their share of the scores but have no column.

All inputs are BYTES, whose data is a list of text, flat or nested.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sar_infer import __version__
from sar_infer.bundle.bundle import bundle_name, default_bundle
from sar_infer.server.asking import ask
from sar_infer.server.door import Door
from sar_infer.server.model.banks import NAME
from sar_infer.server.model.engine import values_of
from sar_infer.server.model.line import ImageInput
from sar_infer.server.openapi import answer, problems, request_body
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
_MOST_SCORES = 2**18
_FEW: Any = Field(max_length=16, fail_fast=True)
"""Inputs, outputs and dimensions; more are refused before they are read. The model has three or four of each."""


class InferInput(BaseModel):
    """One input tensor; ``data`` is flat or nested, row by row."""

    name: Literal["IMAGE", "CLASSES"]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], _FEW]
    datatype: Literal["BYTES"]
    data: list[Any]


class InferOutput(BaseModel):
    """One requested output."""

    name: Literal["SCORES", "LABELS", "EMBEDDING"]


class InferParameters(BaseModel):
    """Parameters of a call; others are ignored."""

    mode: Mode | None = Field(default=None, description="default: extend if there is an input CLASSES, else bank")
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = Field(
        default=None, description="return this many classes, the best first"
    )


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
    return JSONResponse({"name": "sar-clip", "version": __version__, "extensions": ["parameters"]})


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
    responses={200: answer("InferAnswer"), **problems(401, 404, 422, 503, model="ErrorAnswer")},
    openapi_extra=request_body(InferRequest),
)
async def infer(request: Request, service: Serving, model: Model) -> Response:
    """Classify or embed images; one bad image fails the whole call."""
    if "inference-header-content-length" in request.headers:
        raise Problem("bad-request", "binary tensor data is not supported; send the tensors as JSON")
    bank, body, limits = await _bank(service, model), await request.body(), service.settings.limits
    call, images, phrases = await service.in_turn(len(body), lambda: read_tensors(body, limits))
    labels = [f"IMAGE[{i}]" for i in range(len(images))]
    names = [output.name for output in call.outputs] or ["SCORES", "LABELS"]
    tensors = dict[str, npt.NDArray[Any]]()
    if {*names} != {"EMBEDDING"}:
        tensors |= await _ranked(service, call.parameters, images, bank, phrases, labels)
    if "EMBEDDING" in names:
        with service.lease() as engine, service.images.hold(len(images)):
            outcomes = await engine.line.each(images, lambda rows: rows)
        tensors["EMBEDDING"] = np.array(values_of(outcomes, labels))
    version = service.engine.bundle.manifest.digest[:12]
    outputs = [
        {"name": name, "datatype": _OUTPUTS[name], "shape": tensors[name].shape, "data": tensors[name].ravel().tolist()}
        for name in names
    ]
    named = {} if call.id is None else {"id": call.id}
    content = {"model_name": model, "model_version": version, **named, "outputs": outputs}
    return Response(to_json(content), media_type="application/json")


async def _ranked(
    service: Service,
    options: InferParameters,
    images: Sequence[ImageInput],
    bank: str | None,
    phrases: Phrases,
    labels: Sequence[str],
) -> dict[str, npt.NDArray[Any]]:
    """Return SCORES and LABELS of images, without background classes.

    Raises:
        Problem: an image is bad, or there are more scores than an answer may have.
    """
    only, most = chooses_only(options.mode, bool(phrases)), _MOST_SCORES // len(images)
    outcomes, [(classes, _)], _ = await ask(service, images, [bank], phrases, only, options.top_k or most)
    if options.top_k is None and len(classes.names) > most:
        problem = f"{len(images)} × {len(classes.names)} scores are too many for one answer; ask for top_k"
        raise Problem("invalid-request", problem)
    position = {name: at for at, name in enumerate(classes.names)}
    best = [result.predictions for result in values_of(outcomes, labels)]
    if options.top_k is None:
        best = [tuple(sorted(of_image, key=lambda one: position[one.label])) for of_image in best]
    return {
        "SCORES": np.array([[one.score for one in of_image] for of_image in best]),
        "LABELS": np.array([[one.label for one in of_image] for of_image in best], object),
    }


async def _readiness(service: Service, **fields: str) -> Response:
    readiness = await service.readiness()
    if readiness.ready:
        return JSONResponse({**fields, "ready": True})
    return JSONResponse({**fields, "ready": False, "error": readiness.reason}, 503, {"Retry-After": "2"})


async def _bank(service: Service, model: str) -> str | None:
    """Return the bank of --banks that a model is, also one that is named like the bundle; None for that of --bank.

    Raises:
        Problem: ``not-found``, or the bank cannot be used.
    """
    name = bundle_name(service.settings.bundle or default_bundle())
    is_bundle = model in (name, _ALIAS)
    if service.settings.banks is not None and re.fullmatch(NAME, model):
        try:
            await service.engine.banks.open(model)
        except Problem as problem:
            if problem.code != "not-found" or not is_bundle:
                raise
        else:
            return model
    if not is_bundle:
        raise Problem("not-found", f"no model {model!r:.80}; expected {name} or {_ALIAS}")
    return None


def read_tensors(body: bytes, limits: Limits) -> tuple[InferRequest, Sequence[ImageInput], Phrases]:
    """Return a call with its images and its class names, each its own phrase.

    Raises:
        Problem: malformed, or it asks for too much.
    """
    call = parse(InferRequest, body, limits)
    elements = dict[str, list[str]]()
    for tensor in call.inputs:
        if tensor.name in elements:
            raise _wrong(tensor, "it is given twice")
        elements[tensor.name] = _elements(tensor, limits)
    if "IMAGE" not in elements:
        raise Problem("invalid-request", "inputs: expected IMAGE")
    return call, [decoded(text) for text in elements["IMAGE"]], cleaned(elements.get("CLASSES", ()), limits)


def _elements(tensor: InferInput, limits: Limits) -> list[str]:
    count, *more = tensor.shape or [0]
    if count < 1 or more not in ([], [1]):
        raise _wrong(tensor, f"expected shape [N] or [N, 1], got {tensor.shape!s:.80}")
    if tensor.name == "IMAGE":
        check_count(count, limits)
    texts = [text for row in tensor.data for text in (row if isinstance(row, list) else (row,))]
    if len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise _wrong(tensor, f"expected {count} texts for shape {tensor.shape!s:.80}, flat or nested")
    return texts


def _wrong(tensor: InferInput, problem: str) -> Problem:
    return Problem("invalid-request", f"input {tensor.name!r}: {problem}")


DOOR = Door(
    "open-inference",
    router,
    re.compile("/v2(/|$)"),
    lambda problem: {"error": problem.detail},
    open_paths=re.compile("/v2/health/"),
)
