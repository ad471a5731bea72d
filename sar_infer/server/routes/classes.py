"""``/v1/classes``: the bank, and classes that are added to it and removed from it while the server runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from sar_infer.server.bank.refusals import ChangeRefusedError
from sar_infer.server.bank.snapshot import Entry
from sar_infer.server.http.body import parse
from sar_infer.server.http.dependencies import Serving, Writable
from sar_infer.server.http.models import ClassChange, ClassEntry, ClassList
from sar_infer.server.http.openapi import problems, reference
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service

router = APIRouter(tags=["classes"])
Name = Annotated[str, Path(description="the class name, percent-encoded", min_length=1)]
IfMatch = Annotated[str | None, Header(description="the bank's ETag, as last seen: 412 where it has changed since")]
T = TypeVar("T")
_MOST = 1000


@router.get("/v1/classes", response_model=ClassList, responses={304: {"description": "As known."}, **problems(422)})
async def list_classes(
    service: Serving,
    prefix: Annotated[str, Query(description="only names that begin like this")] = "",
    removed: Annotated[bool, Query(description="list the bundle's classes that were removed instead")] = False,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
    if_none_match: Annotated[str | None, Header(description="an ETag that is known: 304 where nothing changed")] = None,
) -> Response:
    """List the bank's classes, in its order, or those removed from it, at most 1,000 at a time."""
    snapshot = service.store.snapshot
    headers = {"ETag": f'"{snapshot.etag}"'}
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    if headers["ETag"] in known or "*" in known:
        return Response(status_code=304, headers=headers)
    start = prefix.casefold()
    listed = snapshot.removed if removed else snapshot.entries()
    entries = [entry for entry in listed if entry.name.casefold().startswith(start)]
    shown = [_shown(entry) for entry in entries[offset : offset + limit]]
    answer = {"classes": shown, "count": len(entries), "removed": len(snapshot.removed), "bank": snapshot.etag}
    return JSONResponse(answer, headers=headers)


@router.get("/v1/classes/{name:path}", response_model=ClassEntry, responses=problems(404))
async def get_class(service: Serving, name: Name) -> Response:
    """One class; case and space do not count."""
    snapshot = service.store.snapshot
    entry = snapshot.find(name)
    if entry is None:
        raise Problem("not-found", f"no class {name!r:.80}")
    return JSONResponse(_shown(entry), headers={"ETag": f'"{snapshot.etag}"'})


@router.put(
    "/v1/classes/{name:path}",
    response_model=ClassEntry,
    responses={201: {"model": ClassEntry, "description": "Added."}, **problems(400, 403, 404, 412, 422, 429, 507)},
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": reference(ClassChange)}}}},
)
async def put_class(request: Request, service: Writable, name: Name, if_match: IfMatch = None) -> Response:
    """Add a class, or give one other phrases; asked twice, it is done once.

    Needs a server with a key and ``--state``.
    """
    body = await request.body()
    phrases = parse(ClassChange, body, service.settings.limits).phrases if body else None
    change = await _change(service, lambda: service.store.put(name, phrases, if_match))
    return JSONResponse(_shown(change.entry), 201 if change.created else 200, {"ETag": f'"{change.etag}"'})


@router.delete(
    "/v1/classes/{name:path}",
    status_code=204,
    responses={204: {"description": "Removed."}, **problems(403, 404, 409, 412, 507)},
)
async def delete_class(service: Writable, name: Name, if_match: IfMatch = None) -> Response:
    """Remove a class, also one that the bundle brought. Needs a server with a key and ``--state``."""
    etag = await _change(service, lambda: service.store.remove(name, if_match))
    return Response(status_code=204, headers={"ETag": f'"{etag}"'})


async def _change(service: Service, change: Callable[[], T]) -> T:
    try:
        return await service.change(change)
    except ChangeRefusedError as error:
        raise Problem(error.code, str(error)) from None


def _shown(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "origin": entry.origin, "phrases": list(entry.phrases)}
