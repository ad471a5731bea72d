"""``/v2``: Open Inference Protocol v2 over HTTP, with Triton's binary tensor data and classification extensions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from sar_infer import __version__
from sar_infer.server.http.openapi import BINARY, ErrorAnswer, problems, reference
from sar_infer.server.http.request import Serving
from sar_infer.server.oip import inference
from sar_infer.server.oip.protocol import HEADER_LENGTH, InferAnswer, InferRequest, answer

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
Model = Annotated[str, Path(description="the name of the bundle's folder, or sar-clip", examples=["sar-clip"])]
Version = Annotated[str, Path(description="the first 12 digits of the bundle's digest")]
EXTENSIONS = ("binary_tensor_data", "classification", "parameters")
_UNKNOWN = problems(404, 422, model=ErrorAnswer)
_INFER: dict[str, Any] = {
    "response_model": InferAnswer,
    "responses": {
        200: {"content": {"application/octet-stream": {"schema": BINARY}}},
        **problems(400, 404, 408, 413, 415, 422, 429, 503, 504, model=ErrorAnswer),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference(InferRequest)},
                "application/octet-stream": {"schema": BINARY},
            },
        }
    },
}


class Live(BaseModel):
    """A sign that the event loop answers."""

    live: bool


class Ready(BaseModel):
    """The result of the last self-test of the model; ``error`` says why it is not ready."""

    ready: bool
    name: str | None = None
    error: str | None = None


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
    return ServerMetadata(name="sar-clip", version=__version__, extensions=list(EXTENSIONS))


@router.get("/health/live")
async def live() -> Live:
    """Answer as ``/healthz`` does."""
    return Live(live=True)


@router.get("/health/ready", response_model=Ready, responses={503: {"model": Ready, "description": "Not ready."}})
async def ready(service: Serving) -> Response:
    """Answer as ``/readyz`` does."""
    return await _readiness(service, {})


@router.get("/models/{model}/ready", response_model=Ready, responses={**_UNKNOWN, 503: {"model": Ready}})
async def model_ready(service: Serving, model: Model) -> Response:
    """Answer as ``/readyz`` does, if the model is known."""
    inference.check_model(service, service.engine, model)
    return await _readiness(service, {"name": model})


@router.get(
    "/models/{model}/versions/{version}/ready", response_model=Ready, responses={**_UNKNOWN, 503: {"model": Ready}}
)
async def version_ready(service: Serving, model: Model, version: Version) -> Response:
    """Answer as ``/readyz`` does, if the model and version are known."""
    inference.check_model(service, service.engine, model, version)
    return await _readiness(service, {"name": model})


@router.get("/models/{model}", responses=_UNKNOWN)
async def model_metadata(service: Serving, model: Model) -> ModelMetadata:
    """Describe versions, inputs and outputs. A call has either IMAGE or pixels; CLASSES may be left out."""
    return _metadata(service, model)


@router.get("/models/{model}/versions/{version}", responses=_UNKNOWN)
async def version_metadata(service: Serving, model: Model, version: Version) -> ModelMetadata:
    """Do as without a version, if the version is the current one."""
    return _metadata(service, model, version)


@router.post("/models/{model}/infer", **_INFER)
async def infer(request: Request, service: Serving, model: Model) -> Response:
    """Classify or embed images; one bad image fails the whole call."""
    return await _infer(request, service, model)


@router.post("/models/{model}/versions/{version}/infer", **_INFER)
async def version_infer(request: Request, service: Serving, model: Model, version: Version) -> Response:
    """Do as without a version, if the version is the current one."""
    return await _infer(request, service, model, version)


async def _readiness(service: Serving, fields: dict[str, str]) -> Response:
    readiness = await service.readiness()
    if readiness.ready:
        return JSONResponse({**fields, "ready": True})
    return JSONResponse({**fields, "ready": False, "error": readiness.reason}, 503, {"Retry-After": "2"})


def _metadata(service: Serving, model: str, version: str | None = None) -> ModelMetadata:
    engine = service.engine
    current = inference.check_model(service, engine, model, version)
    inputs, outputs = inference.describe(engine)
    return ModelMetadata(
        name=model,
        versions=[current],
        platform="onnx_onnxv1",
        inputs=[TensorMetadata(**fields) for fields in inputs],
        outputs=[TensorMetadata(**fields) for fields in outputs],
    )


async def _infer(request: Request, service: Serving, model: str, version: str | None = None) -> Response:
    body = await request.body()
    with service.lease() as engine:
        bank = (await service.current()).bank
        current = inference.check_model(service, engine, model, version)
        size, limits = engine.bundle.manifest.preprocess.size, service.settings.limits
        length = request.headers.get(HEADER_LENGTH)
        call = await service.in_turn(len(body), lambda: inference.read_call(body, length, size, limits))
        outputs = await inference.infer(service, engine, bank, call)
    return answer(outputs, model_name=model, model_version=current, id=call.request.id)
