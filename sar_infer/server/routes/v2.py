"""``/v2``: Open Inference Protocol v2 over HTTP, with Triton's binary tensor data and classification extensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from sar_infer import __version__
from sar_infer.bundle.bundle import bundle_name, default_bundle
from sar_infer.server.http.openapi import BINARY, ErrorAnswer, problems, request_body
from sar_infer.server.http.request import Serving
from sar_infer.server.model.engine import Engine
from sar_infer.server.oip import inference
from sar_infer.server.oip.protocol import HEADER_LENGTH, InferAnswer, InferRequest, answer
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
Model = Annotated[str, Path(description="the name of the bundle's folder, or sar-clip", examples=["sar-clip"])]
Version = Annotated[str, Path(description="the first 12 digits of the bundle's digest")]
_ALIAS = "sar-clip"
"""A name that the model always has, in addition to that of its bundle's folder."""
_VERSION_LENGTH = 12
_EXTENSIONS = ("binary_tensor_data", "classification", "parameters")
_AS_WITHOUT = "Do as without a version, if the version is the current one."
_INFER: dict[str, Any] = {
    "response_model": InferAnswer,
    "responses": {
        200: {"content": {"application/octet-stream": {"schema": BINARY}}},
        **problems(404, 422, 503, model=ErrorAnswer),
    },
    "openapi_extra": request_body(InferRequest, binary=("application/octet-stream",)),
}


class Live(BaseModel):
    """A sign that the event loop answers."""

    live: bool


class Ready(BaseModel):
    """The result of the last self-test of the model; ``error`` says why it is not ready."""

    ready: bool
    name: str | None = None
    error: str | None = None


_UNKNOWN = problems(404, 422, model=ErrorAnswer)
_NOT_READY = {**_UNKNOWN, 503: {"model": Ready}}


class ServerMetadata(BaseModel):
    """The server's name, version and extensions."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """One input or output; -1 stands for any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """The inputs and outputs of the model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


@router.get("", responses=problems(model=ErrorAnswer))
async def server_metadata() -> ServerMetadata:
    """Return name, version and extensions of the server."""
    return ServerMetadata(name="sar-clip", version=__version__, extensions=list(_EXTENSIONS))


@router.get("/health/live")
async def live() -> Live:
    """Answer as ``/healthz`` does."""
    return Live(live=True)


@router.get("/health/ready", response_model=Ready, responses={503: {"model": Ready, "description": "Not ready."}})
async def ready(service: Serving) -> Response:
    """Answer as ``/readyz`` does."""
    return await _readiness(service, {})


async def _version(version: Version) -> None:
    """Describe the version in the path of a route; ``_check`` reads it."""


def _versioned(name: str, description: str = _AS_WITHOUT) -> dict[str, Any]:
    """Return the arguments of a route that does what another does, and has a version in its path."""
    return {"name": name, "description": description, "dependencies": [Depends(_version)]}


@router.get(
    "/models/{model}/versions/{version}/ready",
    response_model=Ready,
    responses=_NOT_READY,
    **_versioned("version_ready", "Answer as ``/readyz`` does, if the model and version are known."),
)
@router.get("/models/{model}/ready", response_model=Ready, responses=_NOT_READY)
async def model_ready(request: Request, service: Serving, model: Model) -> Response:
    """Answer as ``/readyz`` does, if the model is known."""
    _check(request, service, service.engine)
    return await _readiness(service, {"name": model})


@router.get("/models/{model}/versions/{version}", responses=_UNKNOWN, **_versioned("version_metadata"))
@router.get("/models/{model}", responses=_UNKNOWN)
async def model_metadata(request: Request, service: Serving, model: Model) -> ModelMetadata:
    """Describe versions, inputs and outputs. A call has either IMAGE or pixels; CLASSES may be left out."""
    version, manifest = _check(request, service, service.engine), service.engine.bundle.manifest
    pixels = [-1, 3, manifest.preprocess.size, manifest.preprocess.size]
    shapes = {"pixels": pixels, "SCORES": [-1, -1], "LABELS": [-1, -1], "EMBEDDING": [-1, manifest.embed_dim]}

    def described(datatypes: Mapping[str, str]) -> list[TensorMetadata]:
        tensors = datatypes.items()
        return [TensorMetadata(name=name, datatype=kind, shape=shapes.get(name, [-1])) for name, kind in tensors]

    inputs, outputs = described(inference.INPUTS), described(inference.OUTPUTS)
    return ModelMetadata(name=model, versions=[version], platform="onnx_onnxv1", inputs=inputs, outputs=outputs)


@router.post("/models/{model}/versions/{version}/infer", **_INFER, **_versioned("version_infer"))
@router.post("/models/{model}/infer", **_INFER)
async def infer(request: Request, service: Serving, model: Model) -> Response:
    """Classify or embed images; one bad image fails the whole call."""
    body = await request.body()
    with service.lease() as engine:
        bank = (await service.current()).bank
        version = _check(request, service, engine)
        call, outputs = await inference.infer(service, engine, bank, body, request.headers.get(HEADER_LENGTH))
    return answer(call, outputs, model_name=model, model_version=version)


def _check(request: Request, service: Service, engine: Engine) -> str:
    """Return the version of an engine: the first digits of its bundle's digest.

    Raises:
        Problem: ``not-found``: the path names another model or version.
    """
    model, version = request.path_params["model"], request.path_params.get("version")
    model_name = bundle_name(service.settings.bundle or default_bundle())
    current = engine.bundle.manifest.digest[:_VERSION_LENGTH]
    if model not in (model_name, _ALIAS):
        raise Problem("not-found", f"no model {model!r:.80}; expected {model_name} or {_ALIAS}")
    if version not in (None, current):
        raise Problem("not-found", f"no version {version!r:.80} of {model}; expected {current}")
    return current


async def _readiness(service: Service, fields: dict[str, str]) -> Response:
    readiness = await service.readiness()
    if readiness.ready:
        return JSONResponse({**fields, "ready": True})
    return JSONResponse({**fields, "ready": False, "error": readiness.reason}, 503, {"Retry-After": "2"})
