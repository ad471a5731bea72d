"""``/v2``: Open Inference Protocol v2 over HTTP, with Triton's binary tensor data extension.

Inputs: IMAGE, and CLASSES if the call has class names of its own. Outputs: SCORES and LABELS (N, C) whose
columns are the classes of the call, the bank's first, or (N, top_k) with the best first in each row; EMBEDDING (N, D).
Background classes take their share of the scores but have no column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from sar_infer import __version__
from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import bundle_name, default_bundle
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet
from sar_infer.server import oip
from sar_infer.server.class_names import cleaned
from sar_infer.server.http.openapi import BINARY, ErrorAnswer, problems, request_body
from sar_infer.server.http.request import Serving, check_count, chooses_only, decoded
from sar_infer.server.model.engine import Engine, Finish, ImageInput
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service
from sar_infer.server.settings import Limits
from sar_infer.text.names import Phrases

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
Model = Annotated[str, Path(description="the name of the bundle's folder, or sar-clip", examples=["sar-clip"])]
_ALIAS = "sar-clip"
"""A name that the model always has, in addition to that of its bundle's folder."""
_INPUTS = {"IMAGE": "BYTES", "CLASSES": "BYTES"}
_OUTPUTS = {"SCORES": "FP32", "LABELS": "BYTES", "EMBEDDING": "FP32"}
"""Datatypes by name."""
_MOST_SCORES = 2**18


class Ready(BaseModel):
    """The result of the last self-test of the model; ``error`` says why it is not ready."""

    ready: bool
    name: str | None = None
    error: str | None = None


_UNKNOWN = problems(404, 422, model=ErrorAnswer)


@router.get("", responses=problems(model=ErrorAnswer))
async def server_metadata() -> dict[str, Any]:
    """Return name, version and extensions of the server."""
    return {"name": "sar-clip", "version": __version__, "extensions": ["binary_tensor_data", "parameters"]}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Answer as ``/healthz`` does."""
    return {"live": True}


@router.get("/health/ready", response_model=Ready, responses={503: {"model": Ready, "description": "Not ready."}})
async def ready(service: Serving) -> Response:
    """Answer as ``/readyz`` does."""
    return await _readiness(service, {})


@router.get("/models/{model}/ready", response_model=Ready, responses={**_UNKNOWN, 503: {"model": Ready}})
async def model_ready(service: Serving, model: Model) -> Response:
    """Answer as ``/readyz`` does, if the model is known."""
    _check(service, model)
    return await _readiness(service, {"name": model})


@router.get("/models/{model}", responses=_UNKNOWN)
async def model_metadata(service: Serving, model: Model) -> dict[str, Any]:
    """Describe version, inputs and outputs; CLASSES may be left out."""
    _check(service, model)
    manifest = service.engine.bundle.manifest
    shapes = {"SCORES": [-1, -1], "LABELS": [-1, -1], "EMBEDDING": [-1, manifest.embed_dim]}
    inputs, outputs = (
        [{"name": name, "datatype": kind, "shape": shapes.get(name, [-1])} for name, kind in tensors.items()]
        for tensors in (_INPUTS, _OUTPUTS)
    )
    versions = [manifest.digest[:12]]
    return {"name": model, "versions": versions, "platform": "onnx_onnxv1", "inputs": inputs, "outputs": outputs}


@router.post(
    "/models/{model}/infer",
    response_model=oip.InferAnswer,
    responses={
        200: {"content": {"application/octet-stream": {"schema": BINARY}}},
        **problems(404, 422, 503, model=ErrorAnswer),
    },
    openapi_extra=request_body(oip.InferRequest, binary=("application/octet-stream",)),
)
async def infer(request: Request, service: Serving, model: Model) -> Response:
    """Classify or embed images; one bad image fails the whole call."""
    _check(service, model)
    body, length, limits = await request.body(), request.headers.get(oip.HEADER_LENGTH), service.settings.limits
    with service.lease() as engine:
        bank = await service.current()
        call, images, phrases = await service.in_turn(len(body), lambda: _read_call(body, length, limits))
        top_k, only = call.parameters.top_k, chooses_only(call.parameters.mode, bool(phrases))
        classes, count = None, 0
        with service.images.hold(len(images)):
            if any(output.name != "EMBEDDING" for output in call.outputs):
                classes = await engine.names.class_set(phrases, only, bank)
                count = len(classes.names)
                if top_k is None and len(images) * count > _MOST_SCORES:
                    problem = f"{len(images)} × {count} scores are too many for one answer; ask for top_k"
                    raise Problem("invalid-request", problem)
                engine.decide(classes)  # refuses a call with background classes alone
            labels = [f"IMAGE[{i}]" for i in range(len(images))]
            rows = await engine.all_of(images, _finisher(engine, classes, call.outputs, top_k), labels, count)
    for best, _ in rows:
        if best is not None:
            service.metrics.top_score.observe(best)
    outputs = [*zip(*(values for _, values in rows), strict=True)]
    return oip.answer(call, outputs, model, engine.bundle.manifest.digest[:12])


def _check(service: Service, model: str) -> None:
    """Raise ``not-found`` if the path names another model."""
    name = bundle_name(service.settings.bundle or default_bundle())
    if model not in (name, _ALIAS):
        raise Problem("not-found", f"no model {model!r:.80}; expected {name} or {_ALIAS}")


async def _readiness(service: Service, fields: dict[str, str]) -> Response:
    readiness = await service.readiness()
    if readiness.ready:
        return JSONResponse({**fields, "ready": True})
    return JSONResponse({**fields, "ready": False, "error": readiness.reason}, 503, {"Retry-After": "2"})


def _finisher(
    engine: Engine, classes: ClassSet | None, outputs: Sequence[oip.InferOutput], top_k: int | None
) -> Finish[tuple[float | None, Sequence[oip.Row]]]:
    """Return the function that makes of images (N, D) their best scores, and rows of each output."""
    if classes is None:  # only the embedding is wanted
        return lambda rows: [(None, [row]) for row in rows]
    classifier, hidden = engine.classifier, classes.background
    answers = slice(None) if hidden is None else ~hidden
    names = tuple(name.encode() for i, name in enumerate(classes.names) if hidden is None or not hidden[i])

    def finish(rows: Floats) -> Iterator[tuple[float, Sequence[oip.Row]]]:
        logits = classifier.logits(rows, classes)
        scores = classifier.scores(logits)[:, answers]
        logits = logits[:, answers]
        values = zip(*(tensor(output, rows, logits, scores) for output in outputs), strict=True)
        return zip(scores.max(axis=1).tolist(), values, strict=True)

    def tensor(output: oip.InferOutput, rows: Floats, logits: Floats, scores: Floats) -> Iterable[oip.Row]:
        if output.name == "EMBEDDING":
            return rows
        if top_k is None:
            return scores if output.name == "SCORES" else [names] * len(rows)
        best = ranking.top_k(logits, top_k)
        if output.name == "SCORES":
            return np.take_along_axis(scores, best, axis=1)
        return [[names[i] for i in columns] for columns in best]

    return finish


def _read_call(
    body: bytes, header_length: str | None, limits: Limits
) -> tuple[oip.InferRequest, Sequence[ImageInput], Phrases]:
    """Return a checked call, its images and its class names."""
    request = oip.read_request(body, header_length, limits)
    request.outputs = request.outputs or [oip.InferOutput(name="SCORES"), oip.InferOutput(name="LABELS")]
    for output in request.outputs:
        if output.name not in _OUTPUTS or output.parameters.shared_memory_region is not None:
            expected = f"expected {', '.join(_OUTPUTS)}, not in shared memory"
            raise Problem("invalid-request", f"output {output.name!r:.80}: {expected}")
    for tensor in request.inputs:
        if tensor.datatype != _INPUTS.get(tensor.name):
            raise tensor.wrong(f"expected IMAGE or CLASSES of datatype BYTES, got {tensor.datatype!r:.40}")
    tensors = {tensor.name: tensor for tensor in request.inputs}
    if "IMAGE" not in tensors:
        raise Problem("invalid-request", "inputs: expected IMAGE")
    image = tensors["IMAGE"]
    count, *rest = image.shape or [0]
    if count < 1 or rest not in ([], [1]):
        raise image.wrong(f"expected shape [N] or [N, 1], got {image.shape!s:.80}")
    check_count(count, limits)
    images = [decoded(item) if isinstance(item, str) else item for item in image.values()]
    return request, images, _phrases(tensors["CLASSES"], limits) if "CLASSES" in tensors else {}


def _phrases(tensor: oip.InferInput, limits: Limits) -> Phrases:
    if len(tensor.shape) != 1 or tensor.shape[0] < 1:
        raise tensor.wrong(f"expected shape [C], got {tensor.shape!s:.80}")
    if tensor.shape[0] > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} class names, got {tensor.shape[0]}")
    try:
        return cleaned([item if isinstance(item, str) else item.decode() for item in tensor.values()], limits)
    except UnicodeDecodeError:
        raise tensor.wrong("expected UTF-8") from None
