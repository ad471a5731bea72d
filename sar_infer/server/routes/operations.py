"""Routes for those who run the server: liveness, readiness, metrics, the model, and the reload of the bundle."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import generate_latest

from sar_infer import __version__
from sar_infer.errors import SarInferError
from sar_infer.server.openapi import answer, problems
from sar_infer.server.problems import Problem, public
from sar_infer.server.request import Keyed, Reading, Serving

router = APIRouter(tags=["operations"])
_SHOWN = (
    "digest", "backbone", "weights_digest", "method", "template", "regularisers", "embed_dim", "logit_scale",
    "encoder_digest", "preprocess", "tokenizer", "quality", "provenance", "schema_version",
)  # fmt: skip
_METRICS: dict[int | str, Any] = {200: {"content": {"text/plain": {}}}, 404: {"description": "Switched off."}}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", responses={200: answer("Alive"), **problems()})
@router.head("/livez", include_in_schema=False)
@router.get("/livez", include_in_schema=False)
async def alive() -> Response:
    """Tell that the event loop answers; this says nothing about the model."""
    return JSONResponse({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={**problems(), 200: answer("Readiness"), 503: answer("Readiness", "Not ready.")})
async def ready(service: Serving) -> Response:
    """Tell whether the model gives the vector of the export for the self-test image; run at most every two seconds."""
    readiness = await service.readiness()
    content = {**readiness._asdict(), "provider": service.engine.provider, "draining": service.draining}
    return JSONResponse(content, 200 if readiness.ready else 503, {} if readiness.ready else {"Retry-After": "2"})


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", responses={**problems(), **_METRICS})
async def metrics(service: Serving) -> Response:
    """Return the metrics in Prometheus's text format."""
    if not service.settings.metrics:
        raise Problem("not-found", "metrics are switched off")
    return Response(generate_latest(service.metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/model", responses={200: answer("Model"), **problems(401)})
async def model(service: Reading) -> Response:
    """Describe the model: the bundle and its measured quality, the device, the precision, the limits."""
    engine = service.engine
    await engine.banks.look()
    classes, bank = engine.banks.main.classes, engine.banks.bank
    manifest = dataclasses.asdict(engine.bundle.manifest)
    content = {
        **{field: manifest[field] for field in _SHOWN},
        "classes": len(bank.names),
        "bank": bank.state_digest,
        "trained": 0 if engine.bundle.trained is None else len(engine.bundle.trained.names),
        "provider": engine.provider,
        "unknown": classes is not None and len(classes.model.unknown) > 0,
        "several": classes is not None and classes.model.photos > 0,
        "precision": engine.classifier.choice.precision,
        "sizes": dataclasses.asdict(engine.sizes),
        "writes": service.settings.writable,
        "suggests": service.settings.key is not None and find_spec("scipy") is not None,
        "limits": dataclasses.asdict(service.settings.limits),
        "version": __version__,
    }
    return JSONResponse(content)


@router.post("/v1/reload", responses={200: answer("Reloaded"), **problems(401, 403, 422)})
async def reload(service: Keyed) -> Response:
    """Open the bundle's path again, verify and warm the new bundle, and replace the old one; refuse a bad one."""
    try:
        await service.reload()
    except SarInferError as error:
        reason = public(error, service.settings.bank, service.engine.bundle.path)
        raise Problem("bad-bundle", f"refused, the old bundle stays: {reason}") from None
    engine = service.engine
    return JSONResponse({"digest": engine.bundle.manifest.digest, "classes": len(engine.banks.bank.names)})
