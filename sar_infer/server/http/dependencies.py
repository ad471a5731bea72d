"""What routes ask FastAPI for; coroutines, because FastAPI would run plain functions in a thread of their own."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from sar_infer.server.problems import Problem
from sar_infer.server.service import Service


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _keyed(request: Request) -> Service:
    """The service, where a key is configured; ``middleware`` has checked that this request carries it."""
    service = await _service(request)
    if service.settings.key is None:
        raise Problem(
            "writes-disabled",
            "this server was started without a key; start it with SAR_API_KEY, to change classes also with --state DIR",
        )
    return service


async def _writable(request: Request) -> Service:
    service = await _keyed(request)
    if not service.settings.writable:
        raise Problem("writes-disabled", "this server keeps no bank of its own; start it with --state DIR")
    return service


Serving = Annotated[Service, Depends(_service)]
"""The service."""
Keyed = Annotated[Service, Depends(_keyed)]
"""The service of a server that has a key."""
Writable = Annotated[Service, Depends(_writable)]
"""The service of a server whose bank can be changed."""
