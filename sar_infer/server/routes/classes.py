"""``/v1/classes``: list the bank, and add and remove classes while the server runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from sar_infer.server.bank.refusals import ChangeRefusedError
from sar_infer.server.bank.snapshot import Entry
from sar_infer.server.http.openapi import problems, reference
from sar_infer.server.http.request import Serving, Texts, Writable, parse
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service

router = APIRouter(tags=["classes"])
Name = Annotated[str, Path(description="the class name, percent-encoded", min_length=1)]
IfMatch = Annotated[str | None, Header(description="the bank's ETag, as last seen: 412 if it has changed since")]
T = TypeVar("T")
_MOST = 1000


class ClassEntry(BaseModel):
    """One class of the bank."""

    name: str
    origin: Literal["bundle", "added"]
    phrases: list[str]


class ClassList(BaseModel):
    """The classes of the bank, some of them, or those that were removed from it."""

    classes: list[ClassEntry]
    count: int = Field(description="matching classes, on all pages")
    removed: int = Field(description="classes of the bundle that were removed; removed=true lists them")
    bank: str


class ClassChange(BaseModel):
    """The phrases to encode in place of a name."""

    model_config = ConfigDict(extra="forbid")

    phrases: Annotated[Texts, Field(min_length=1)] | None = None


@router.get("/v1/classes", response_model=ClassList, responses={304: {"description": "Not changed."}, **problems(422)})
async def list_classes(
    service: Serving,
    prefix: Annotated[str, Query(description="only names that begin with this")] = "",
    removed: Annotated[bool, Query(description="list the bundle's classes that were removed instead")] = False,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
    if_none_match: Annotated[str | None, Header(description="a known ETag: 304 if nothing changed")] = None,
) -> Response:
    """List the classes of the bank in its order, or those removed from it, at most 1,000 at a time."""
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
    """Return one class; upper and lower case and extra spaces make no difference."""
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
    """Add a class, or change the phrases of one; repeating the request changes nothing.

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
    """Remove a class, also one of the bundle. Needs a server with a key and ``--state``."""
    etag = await _change(service, lambda: service.store.remove(name, if_match))
    return Response(status_code=204, headers={"ETag": f'"{etag}"'})


async def _change(service: Service, change: Callable[[], T]) -> T:
    try:
        return await service.change(change)
    except ChangeRefusedError as error:
        raise Problem(error.code, str(error)) from None


def _shown(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "origin": entry.origin, "phrases": list(entry.phrases)}
