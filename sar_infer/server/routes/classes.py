"""``/v1/classes`` and ``/v1/bank``: list the bank, change it while the server runs, and take changes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import PathConvertor, register_url_convertor

from sar_infer.evaluation.findings import Kind
from sar_infer.server.bank.snapshot import Snapshot
from sar_infer.server.bank.store import NewPhotos
from sar_infer.server.class_names import clean_name
from sar_infer.server.http.openapi import IMAGE_TYPES, form, problems, request_body
from sar_infer.server.http.request import (
    FORM,
    IMAGES,
    Serving,
    Texts,
    Writable,
    is_current,
    is_image,
    media_type,
    read_call,
    read_json,
)
from sar_infer.server.model.engine import ImageInput
from sar_infer.server.model.names import LARGE
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service, in_thread

router = APIRouter(tags=["classes"])
Name = Annotated[str, Path(description="the class name, percent-encoded", min_length=1)]
IfMatch = Annotated[str | None, Header(description="the bank's ETag, as last seen: 412 if it has changed since")]
Strict = Annotated[bool, Query(description="change nothing (409) if there are findings")]
T = TypeVar("T")
_MOST = 1000
_IMAGES = "/images"


class _Text(PathConvertor):
    """Match any text, so that a name with a newline is refused (422); Starlette's ``path`` stops there (404)."""

    regex = "(?s:.*)"


register_url_convertor("text", _Text())


class ClassEntry(BaseModel):
    """One class of the bank."""

    name: str
    origin: Literal["bundle", "added"]
    phrases: list[str]
    photos: int = Field(0, description="photos that it got at run time; present if there are any")
    photos_only: bool = Field(default=False, description="its name means nothing; present if so")


class ClassFinding(BaseModel):
    """A finding about a name, a photo or their class."""

    kind: Kind
    name: str
    message: str
    suggestion: str | None = Field(description="the other class, or another wording")


class ChangedClass(ClassEntry):
    """A class after a change, what is odd about what was new, and with photos, what became of them."""

    known: int | None = Field(None, description="photos left out, as they are counted already; present with photos")
    findings: list[ClassFinding]
    calibrated: bool | None = Field(
        None,
        description="present if the bank has a calibration of its own; false: it is of before a change and does not "
        "count; sar-bank calibrate fits a new one",
    )


class ClassList(BaseModel):
    """The classes of the bank, some of them, or those that were removed from it."""

    classes: list[ClassEntry]
    count: int = Field(description="matching classes, on all pages")
    removed: int = Field(description="classes of the bundle that were removed; removed=true lists them")
    bank: str


class ClassChange(BaseModel):
    """The phrases to encode in place of a name, and photos that are added to those that the class has."""

    model_config = ConfigDict(extra="forbid")

    phrases: Annotated[Texts, Field(min_length=1)] | None = None
    images: Annotated[Texts, Field(min_length=1, description=IMAGES)] | None = None
    photos_only: bool = Field(default=False, description="the name means nothing, only photos say what the class is")


class HistoryStep(BaseModel):
    """One change of the bank."""

    n: int = Field(description="its number, from 1")
    at: str
    action: str
    summary: str
    by: str
    to: int | None = Field(description="the step that a rollback led back to")
    can_undo: bool


class History(BaseModel):
    """The changes of the bank, the latest first, or some of them."""

    steps: list[HistoryStep]
    count: int
    bank: str


class Rollback(BaseModel):
    """The place to go back to: a step, or a number of steps; exactly one of them."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[int, Field(ge=0, description="number of a step; 0 is the beginning")] | None = None
    steps: Annotated[int, Field(ge=1, description="steps to take back")] | None = None
    latest: int | None = Field(None, description="the latest step, as last seen: 412 if there are others since")


class RolledBack(BaseModel):
    """The effect of a rollback; without a step there was nothing to take back."""

    step: HistoryStep | None
    classes: int
    bank: str


_FORM = form(phrases={"type": "array", "items": {"type": "string"}}, photos_only={"type": "boolean"})
_PUT_PROBLEMS = (403, 404, 409, 412, 422, 503, 507)


@router.get("/v1/classes", response_model=ClassList, responses={304: {"description": "Not changed."}, **problems(422)})
async def list_classes(
    service: Serving,
    prefix: Annotated[str, Query(description="only names that begin with this")] = "",
    like: Annotated[str, Query(description="only names that contain this")] = "",
    removed: Annotated[bool, Query(description="list the bundle's classes that were removed instead")] = False,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
    if_none_match: Annotated[str | None, Header(description="a known ETag: 304 if nothing changed")] = None,
) -> Response:
    """List the classes of the bank in its order, or those removed from it, at most 1,000 at a time."""
    snapshot = await service.current()
    if is_current(f'"{snapshot.etag}"', if_none_match):
        return Response(status_code=304, headers={"ETag": f'"{snapshot.etag}"'})
    entries, count = await _looked_up(
        snapshot, lambda: snapshot.page(prefix, offset, limit, like=like, removed=removed)
    )
    content = {"classes": entries, "count": count, "removed": len(snapshot.removed), "bank": snapshot.etag}
    return _answer(ClassList, content, snapshot.etag)


@router.get("/v1/classes/{name:text}", response_model=ClassEntry, responses=problems(404, 422))
async def get_class(service: Serving, name: Name) -> Response:
    """Return one class; upper and lower case and extra spaces make no difference."""
    snapshot = await service.current()
    entry = await _looked_up(snapshot, lambda: snapshot.find(name))
    if entry is None:
        cleaned = clean_name(name)
        raise Problem("not-found", await in_thread(lambda: snapshot.missing(cleaned)))
    return _answer(ClassEntry, entry, snapshot.etag)


@router.put(
    "/v1/classes/{name:text}",
    response_model=ChangedClass,
    responses={201: {"model": ChangedClass, "description": "Added."}, **problems(*_PUT_PROBLEMS, 405)},
    openapi_extra=request_body(ClassChange, _FORM, binary=IMAGE_TYPES, required=False),
)
async def put_class(
    request: Request,
    service: Writable,
    name: Name,
    strict: Strict = False,
    if_match: IfMatch = None,
    if_none_match: Annotated[Literal["*"] | None, Header(description="add only: 412 if the class exists")] = None,
) -> Response:
    """Add a class, change the phrases of one, or add photos to it; repeating the request changes nothing.

    With photos and without phrases, a class that is there keeps its embedding. Needs a server with a key and
    ``--bank``.
    """
    if name.endswith(_IMAGES):
        problem = Problem("method-not-allowed", f"use POST to add images; PUT takes no name that ends in {_IMAGES}")
        problem.headers["Allow"] = "POST"
        raise problem
    return await _put(request, service, name, if_match, strict=strict, only_add=if_none_match is not None)


@router.post(
    "/v1/classes/{name:text}" + _IMAGES,
    response_model=ChangedClass,
    responses=problems(*_PUT_PROBLEMS),
    openapi_extra=request_body(ClassChange, _FORM, binary=IMAGE_TYPES),
)
async def add_images(
    request: Request, service: Writable, name: Name, strict: Strict = False, if_match: IfMatch = None
) -> Response:
    """Add photos to a class that is there. Needs a server with a key and ``--bank``."""
    return await _put(request, service, name, if_match, strict=strict, create=False)


@router.delete(
    "/v1/classes/{name:text}",
    status_code=204,
    responses={204: {"description": "Removed."}, **problems(403, 404, 409, 412, 422, 507)},
)
async def delete_class(service: Writable, name: Name, if_match: IfMatch = None) -> Response:
    """Remove a class, also one of the bundle. Needs a server with a key and ``--bank``."""
    etag = await service.change(lambda: service.store.remove(name, if_match))
    return Response(status_code=204, headers={"ETag": f'"{etag}"'})


@router.get("/v1/bank/history", response_model=History, responses=problems(422))
async def history(
    service: Serving,
    offset: Annotated[int, Query(ge=0, description="steps to leave out, from the latest")] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
) -> Response:
    """List the steps by which the bank was changed, the latest first, by this server and by ``sar-bank``."""
    snapshot = await service.current()
    steps = snapshot.bank.history
    shown = steps[::-1][offset : offset + limit]
    return _answer(History, {"steps": shown, "count": len(steps), "bank": snapshot.etag}, snapshot.etag)


@router.post(
    "/v1/bank/rollback",
    response_model=RolledBack,
    responses=problems(403, 409, 412, 422, 507),
    openapi_extra=request_body(Rollback),
)
async def roll_back(request: Request, service: Writable, if_match: IfMatch = None) -> Response:
    """Go back to an earlier step of the history; this is a step too, and is final.

    Needs a server with a key and ``--bank``.
    """
    if not await request.body():
        raise Problem("bad-request", 'no body; expected {"to": STEP} or {"steps": COUNT}')
    target = await read_json(request, service, Rollback)
    step, snapshot = await service.change(
        lambda: service.store.rollback(target.to, target.steps, if_match, target.latest)
    )
    if step is not None:
        request.state.logged = {"step": step.n, "to": step.to}
    content = {"step": step, "classes": len(snapshot.bank.names), "bank": snapshot.etag}
    return _answer(RolledBack, content, snapshot.etag)


async def _read_change(request: Request, service: Service) -> tuple[ClassChange, Sequence[ImageInput]]:
    """Read a change and its images: JSON, a form, the bytes of an image, or nothing.

    Raises:
        Problem: the body is malformed, or asks for too much.
    """
    kind = media_type(request)
    if kind != FORM and not await request.body():
        return ClassChange(), ()
    if is_image(kind):
        return ClassChange(), [await request.body()]
    change, images = await read_call(request, service, ClassChange, ("phrases", "photos_only"))
    if change.photos_only and not images:
        raise Problem("invalid-request", "photos_only: expected images too")
    return change, images


async def _put(
    request: Request,
    service: Service,
    name: str,
    if_match: str | None,
    *,
    strict: bool,
    create: bool = True,
    only_add: bool = False,
) -> Response:
    change, images = await _read_change(request, service)
    if not (images or create):
        raise Problem("bad-request", "no image; expected an image, a form or JSON with images")
    new: NewPhotos | None = None
    if images:
        with service.lease() as engine, service.images.hold(len(images)):
            photo_set, labels = await engine.photos(images)
        photo_set = replace(photo_set, photos_only=change.photos_only)
        encoder = engine.bundle.manifest.encoder_digest
        new = NewPhotos(photo_set, labels, encoder, create=create)
    done = await service.change(lambda: service.store.put(name, change.phrases, if_match, new, only_add, strict))
    repeats = None if new is None else len(images) - (len(new.photos) - done.repeats)
    content = asdict(done.entry) | {"known": repeats, "findings": done.findings, "calibrated": done.calibrated}
    return _answer(ChangedClass, content, done.etag, 201 if done.created else 200)


async def _looked_up(snapshot: Snapshot, look: Callable[[], T]) -> T:
    """Return what is found in the classes; a large bank is looked through in a thread."""
    return look() if len(snapshot.bank.names) <= LARGE else await in_thread(look)


def _answer(model: type[BaseModel], content: object, etag: str, status: int = 200) -> Response:
    """Return the JSON of a model from an object with its fields; those that have their default are absent."""
    answer = model.model_validate(content, from_attributes=True)
    body = answer.model_dump_json(exclude_defaults=True)
    return Response(body, status, {"ETag": f'"{etag}"'}, "application/json")
