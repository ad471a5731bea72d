"""``/v1/classes`` and ``/v1/bank``: list the bank, change it while the server runs, and take changes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import PathConvertor, register_url_convertor

from sar_infer.bank import ClassBank, Entry, PhotoSet, add, add_photos, remove, rollback
from sar_infer.bank.edits import steps_back
from sar_infer.errors import InputError
from sar_infer.evaluation import Finding, check_new_photos, name_findings
from sar_infer.evaluation.findings import Kind
from sar_infer.server.bank import BUSY_SECONDS
from sar_infer.server.class_names import clean_name, clean_phrases
from sar_infer.server.http.openapi import IMAGE_TYPES, form, problems, request_body
from sar_infer.server.http.request import (
    IMAGES,
    Serving,
    Texts,
    Writable,
    is_current,
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
_BY = "sar-serve"


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

    @classmethod
    def of(cls, entry: Entry, **fields: Any) -> Self:
        """Return a class of a bank, with the phrases that were embedded."""
        return cls(
            name=entry.name,
            origin="bundle" if entry.added is None else "added",
            phrases=[*entry.texts],
            photos=len(entry.photos),
            photos_only=entry.photos_only,
            **fields,
        )


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

    model_config = ConfigDict(from_attributes=True)

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
    bank = await service.current()
    etag, start, fragment = bank.content_digest, prefix.casefold(), like.casefold()
    if is_current(f'"{etag}"', if_none_match):
        return Response(status_code=304, headers={"ETag": f'"{etag}"'})

    def look() -> ClassList:
        gone = _removed(bank)
        entries = gone if removed else [*bank.entries.values()]
        if start or fragment:
            entries = [e for e in entries if (key := e.name.casefold()).startswith(start) and fragment in key]
        shown = [ClassEntry.of(entry) for entry in entries[offset : offset + limit]]
        return ClassList(classes=shown, count=len(entries), removed=len(gone), bank=etag)

    return _answer(await _looked_up(bank, look), etag)


@router.get("/v1/classes/{name:text}", response_model=ClassEntry, responses=problems(404, 422))
async def get_class(service: Serving, name: Name) -> Response:
    """Return one class; upper and lower case and extra spaces make no difference."""
    bank = await service.current()
    position = await _looked_up(bank, lambda: bank.lookup.name(name))
    if position is None:
        cleaned = clean_name(name)
        raise Problem("not-found", await in_thread(lambda: _missing(bank, cleaned)))
    return _answer(ClassEntry.of(bank.entries[bank.keys[position]]), bank.content_digest)


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

    def edit(bank: ClassBank) -> ClassBank:
        if bank.lookup.name(name) is None:
            raise Problem("not-found", _missing(bank, clean_name(name)))
        after = remove(bank, [name], by=_BY)
        if not after.can_answer:
            raise Problem("conflict", f"class {name!r} is the last one; add another before you remove it")
        return after

    after = await service.change(edit, if_match)
    return Response(status_code=204, headers={"ETag": f'"{after.content_digest}"'})


@router.get("/v1/bank/history", response_model=History, responses=problems(422))
async def history(
    service: Serving,
    offset: Annotated[int, Query(ge=0, description="steps to leave out, from the latest")] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
) -> Response:
    """List the steps by which the bank was changed, the latest first, by this server and by ``sar-bank``."""
    bank = await service.current()
    shown = [HistoryStep.model_validate(step) for step in bank.history[::-1][offset : offset + limit]]
    return _answer(History(steps=shown, count=len(bank.history), bank=bank.content_digest), bank.content_digest)


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
    if (target.to is None) == (target.steps is None):
        raise InputError("expected either to, the number of a step, or steps, how many to take back")
    before: list[ClassBank] = []

    def edit(bank: ClassBank) -> ClassBank:
        before.append(bank)
        if target.latest not in (None, bank.log.last):
            raise Problem("precondition-failed", f"step {target.latest} is not the latest any more; {bank.log.last} is")
        to = steps_back(bank, target.steps or 0) if target.to is None else target.to
        after = rollback(bank, to, by=_BY)
        if after.encoder_digest != bank.encoder_digest:
            raise Problem("conflict", f"step {to} belongs to another bundle; use sar-bank rollback")
        if not after.can_answer:
            raise Problem("conflict", f"as after step {to} no class could be an answer")
        return after

    after = await service.change(edit, if_match)
    step = None if after is before[0] else HistoryStep.model_validate(after.history[-1])
    if step is not None:
        request.state.logged = {"step": step.n, "to": step.to}
    return _answer(RolledBack(step=step, classes=len(after.names), bank=after.content_digest), after.content_digest)


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
    change = ClassChange()
    images: Sequence[ImageInput] = ()
    if "multipart" in request.headers.get("content-type", "") or await request.body():
        change, images = await read_call(request, service, ClassChange, ("phrases", "photos_only"), change)
    if change.photos_only and not images:
        raise Problem("invalid-request", "photos_only: expected images too")
    if not (images or create):
        raise Problem("bad-request", "no image; expected an image, a form or JSON with images")
    name = clean_name(name)
    texts = None if change.phrases is None else clean_phrases(name, change.phrases)
    photos: PhotoSet | None = None
    if images:
        with service.lease() as engine, service.images.hold(len(images)):
            photos, labels = await engine.photos(images)
        photos, encoder = replace(photos, photos_only=change.photos_only), engine.bundle.manifest.encoder_digest
    done: list[tuple[int, ChangedClass]] = []

    def edit(bank: ClassBank) -> ClassBank:
        position, bundle = bank.lookup.name(name), service.engine.bundle
        if photos is not None and bank.encoder_digest != encoder:
            raise Problem("overloaded", "the bundle was replaced while photos were read; send them again", BUSY_SECONDS)
        if position is not None and only_add:
            raise Problem("precondition-failed", f"class {bank.names[position]!r} exists already")
        if position is None and (owner := bank.lookup.alias(name)) is not None:
            raise Problem("conflict", f"{name!r} is another name of class {bank.names[owner]!r}")
        if position is None and not create:
            raise Problem("not-found", f"only PUT adds a class: {_missing(bank, name)}")
        spelling = name if position is None else bank.names[position]
        findings: list[Finding] = []
        if position is not None and photos is not None and texts is None:
            after = add_photos(bank, {spelling: photos}, by=_BY)
        else:
            phrases = {spelling: texts or (spelling,)}
            if len(bank.names) <= LARGE and not change.photos_only:
                findings += name_findings(bank, bundle, phrases)
            rows = service.engine.classifier.embed_phrases([*phrases.values()])
            after = add(bank, phrases, rows, {} if photos is None else {spelling: photos}, by=_BY)
        known = None
        if photos is not None:
            files = {(spelling, digest): label for digest, label in labels.items()}
            findings += check_new_photos(bank, bundle, {spelling: photos}, files).findings()
            counted = frozenset() if position is None else bank.photos_of(spelling).digest_set
            known = len(images) - len(photos.digest_set - counted)
        if strict and findings:
            raise Problem("conflict", f"nothing was changed (strict): {spelling!r} {findings[0].message}")
        shown = [] if after is bank else [ClassFinding(**vars(finding)) for finding in findings]
        entry, calibrated = after.entry(spelling), after.calibration_holds
        answer = ChangedClass.of(entry, known=known, findings=shown, calibrated=calibrated)
        done.append((201 if position is None else 200, answer))
        return after

    after = await service.change(edit, if_match, name)
    status, answer = done[0]
    return _answer(answer, after.content_digest, status)


def _removed(bank: ClassBank) -> list[Entry]:
    """Return the bundle's classes that were removed from the bank, in the bundle's order."""
    if bank.base is None:
        return []
    base = bank.base.bank
    keys = sorted(bank.changes.keys() & base.entries.keys(), key=base.positions.__getitem__)
    return [base.entries[key] for key in keys if bank.lookup.name(base.entries[key].name) is None]


def _missing(bank: ClassBank, name: str) -> str:
    """Return the message that no class has this name; of a small bank, with names that are spelled alike."""
    return bank.lookup.missing(name, hint=len(bank.names) <= LARGE)


async def _looked_up(bank: ClassBank, look: Callable[[], T]) -> T:
    """Return what is found in the classes; a large bank is looked through in a thread."""
    return look() if len(bank.names) <= LARGE else await in_thread(look)


def _answer(answer: BaseModel, etag: str, status: int = 200) -> Response:
    """Return an answer as JSON; fields that have their default are absent."""
    return Response(answer.model_dump_json(exclude_defaults=True), status, {"ETag": f'"{etag}"'}, "application/json")
