"""``/v1/classes`` and ``/v1/bank``: list the bank, change it while the server runs, and take changes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import Match
from starlette.types import Scope

from sar_infer.bank import ClassBank, Entry, PhotoSet, Step, put_classes, remove, rollback
from sar_infer.bank.edits import ahead, moves, steps_back, texts_to_embed
from sar_infer.classify.fitting import fit_advice
from sar_infer.errors import InputError
from sar_infer.evaluation.findings import Finding, name_findings
from sar_infer.evaluation.labels import check_new_photos
from sar_infer.server.model.banks import BUSY_SECONDS, in_thread
from sar_infer.server.model.engine import values_of
from sar_infer.server.model.line import ImageInput
from sar_infer.server.model.names import LARGE
from sar_infer.server.openapi import IMAGE_TYPES, answer, form, problems, request_body
from sar_infer.server.problems import Problem
from sar_infer.server.request import (
    IMAGES,
    Bank,
    Reading,
    Texts,
    Writable,
    clean_name,
    clean_phrases,
    is_current,
    read_call,
    read_json,
)
from sar_infer.server.service import Service

Name = Annotated[str, Path(description="the class name, percent-encoded", min_length=1)]
IfMatch = Annotated[str | None, Header(description="the bank's ETag, as last seen: 412 if it has changed since")]
Strict = Annotated[bool, Query(description="change nothing (409) if there are findings")]
MOST = 1000
"""Entries of a page at most."""
BY = "sar-serve"
"""The author of changes."""
BELOW = ("photos", "rename")
"""Parts that a path may have below a class."""
_CLASS_DEPTH = 3
"""Segments of a class's path before its name."""


class _Text(PathConvertor):
    """Match any text, so that a name with a newline is refused (422); Starlette's ``path`` stops there (404)."""

    regex = "(?s:.*)"


register_url_convertor("text", _Text())


class ClassRoute(APIRoute):
    """Match a path below a class, such as ``/v1/classes/NAME/photos``, as it was sent: a name may have ``%2F``."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match unless the path as sent ends in what is below a class, and this route's does not, or the reverse."""
        *above, last = scope.get("raw_path", b"").decode("latin-1").split("/")
        sent = last if last in BELOW and len(above) > _CLASS_DEPTH else ""
        own = self.path.rpartition("}/")[2] if "}/" in self.path else ""
        return super().matches(scope) if sent == own or not above else (Match.NONE, {})


router = APIRouter(tags=["classes"], route_class=ClassRoute)


class ClassChange(BaseModel):
    """The phrases to encode instead of a name, and photos that are added to those that the class has."""

    model_config = ConfigDict(extra="forbid")

    phrases: Annotated[Texts, Field(min_length=1)] | None = None
    images: Annotated[Texts, Field(min_length=1, description=IMAGES)] | None = None
    photos_only: bool = Field(default=False, description="the name means nothing, only photos say what the class is")


class Rollback(BaseModel):
    """The place to go back to: a step, or a number of steps; exactly one of them."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[int, Field(ge=0, description="number of a step; 0 is the beginning")] | None = None
    steps: Annotated[int, Field(ge=1, description="steps to take back")] | None = None
    latest: int | None = Field(None, description="the latest step, as last seen: 412 if there are others since")


_FORM = form(phrases={"type": "array", "items": {"type": "string"}}, photos_only={"type": "boolean"})
_READ, _READ_BANK = problems(401, 422), problems(401, 404, 422)
_PUT_PROBLEMS = (403, 404, 409, 412, 422, 503, 507)


@router.get("/v1/classes", responses={200: answer("ClassList"), 304: {"description": "Not changed."}, **_READ_BANK})
async def list_classes(
    service: Reading,
    bank: Bank = None,
    prefix: Annotated[str, Query(description="only names that begin with this")] = "",
    like: Annotated[str, Query(description="only names that contain this")] = "",
    removed: Annotated[bool, Query(description="list the bundle's classes that were removed instead")] = False,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
    if_none_match: Annotated[str | None, Header(description="a known ETag: 304 if nothing changed")] = None,
) -> Response:
    """List the classes of the bank in its order, or those removed from it, at most 1,000 at a time."""
    whole = await service.engine.banks.whole(bank)
    etag, start, fragment = whole.state_digest, prefix.casefold(), like.casefold()
    if is_current(f'"{etag}"', if_none_match):
        return Response(status_code=304, headers={"ETag": f'"{etag}"'})

    def look() -> dict[str, Any]:
        gone: list[Entry] = []
        if whole.base is not None:
            base = whole.base.bank
            keys = sorted(whole.changes.keys() & base.entries.keys(), key=base.positions.__getitem__)
            gone = [base.entries[key] for key in keys if whole.lookup.name(base.entries[key].name) is None]
        entries = gone if removed else [*whole.entries.values()]
        if start or fragment:
            entries = [e for e in entries if (key := e.name.casefold()).startswith(start) and fragment in key]
        shown = [shown_class(entry) for entry in entries[offset : offset + limit]]
        return {"classes": shown, "count": len(entries), "removed": len(gone), "bank": etag}

    return answered(await in_thread(look), etag)


@router.get("/v1/classes/{name:text}", responses={200: answer("ClassEntry"), **problems(401, 404, 422)})
async def get_class(service: Reading, name: Name, bank: Bank = None) -> Response:
    """Return one class, by name or alias; upper and lower case and extra spaces make no difference."""
    whole = await service.engine.banks.whole(bank)
    key = await in_thread(lambda: class_key(whole, name))
    return answered(shown_class(whole.entries[key]), whole.state_digest)


@router.put(
    "/v1/classes/{name:text}",
    responses={200: answer("ChangedClass"), 201: answer("ChangedClass", "Added."), **problems(401, *_PUT_PROBLEMS)},
    openapi_extra=request_body(ClassChange, _FORM, binary=IMAGE_TYPES, required=False),
)
async def put_class(
    request: Request,
    service: Writable,
    name: Name,
    bank: Bank = None,
    strict: Strict = False,
    if_match: IfMatch = None,
    if_none_match: Annotated[Literal["*"] | None, Header(description="add only: 412 if the class exists")] = None,
) -> Response:
    """Add a class, change the phrases of one, or add photos to it; repeating the request changes nothing.

    With photos and without phrases, a class that is there keeps its embedding, and an alias is enough; ``If-Match: *``
    changes only one that is there. Needs a server with a key and ``--bank``.
    """
    change = ClassChange()
    images: Sequence[ImageInput] = ()
    if await request.body():
        change, images = await read_call(request, service, ClassChange, change)
    if change.photos_only and not images:
        raise Problem("invalid-request", "photos_only: expected images too")
    name = clean_name(name)
    texts = None if change.phrases is None else clean_phrases(name, change.phrases)
    photos, numbers, encoder = await embedded(service, images, change.photos_only) if images else (None, {}, "")
    phrases, photographed = {name: texts}, {} if photos is None else {name: photos}

    def put(bank: ClassBank) -> tuple[ClassBank, dict[str, Any], list[Finding]]:
        engine = service.engine
        if {engine.bundle.manifest.encoder_digest, encoder or bank.encoder_digest} != {bank.encoder_digest}:
            raise Problem("overloaded", "the bundle was replaced meanwhile; send the call again", BUSY_SECONDS)
        after = put_classes(bank, phrases, photographed, engine.classifier.class_rows, by=BY)
        entry, findings = after.entry(name), list[Finding]()
        if len(bank.names) <= LARGE and not change.photos_only:
            findings += name_findings(bank, engine.bundle, texts_to_embed(bank, phrases, photographed))
        content = shown_class(entry)
        if photos is not None:
            files = {(entry.name, digest): f"image[{number}]" for digest, number in numbers.items()}
            findings += check_new_photos(bank, engine.bundle, {entry.name: photos}, files).findings()
            counted = frozenset() if bank.lookup.get(name) is None else bank.photos_of(name).digest_set
            content["known"] = len(images) - len(photos.digest_set - counted)
            content["moved"] = [
                {"photo": numbers[one.digest], "from": one.old} for one in moves(bank, {entry.name: photos})
            ]
            if why := fit_advice(bank, after):
                content["advice"] = f"{why}: sar-bank fit"
        if after.calibration_holds is not None:
            content["calibrated"] = after.calibration_holds
        return after, content | {"findings": [] if after is bank else [*map(vars, findings)]}, findings

    whole = await service.engine.banks.whole(bank)
    with service.lease():
        put_ahead = await in_thread(lambda: ahead(whole, put))

    def edit(bank: ClassBank) -> tuple[ClassBank, tuple[dict[str, Any], int]]:
        check_match(if_match, bank, name)
        position = bank.lookup.get(name)
        if position is not None and if_none_match is not None:
            raise Problem("precondition-failed", f"class {bank.names[position]!r} exists already")
        after, content, findings = put_ahead(bank)
        if strict and findings:
            raise Problem("conflict", f"nothing was changed (strict): {content['name']!r} {findings[0].message}")
        return after, (content, 201 if position is None else 200)

    after, (content, status) = await service.change(edit, bank)
    return answered(content, after.state_digest, status)


@router.delete(
    "/v1/classes/{name:text}",
    status_code=204,
    responses={204: {"description": "Removed."}, **problems(401, 403, 404, 409, 412, 422, 507)},
)
async def delete_class(service: Writable, name: Name, bank: Bank = None, if_match: IfMatch = None) -> Response:
    """Remove a class, by name or alias, also one of the bundle. Needs a server with a key and ``--bank``."""

    def edit(bank: ClassBank) -> tuple[ClassBank, None]:
        check_match(if_match, bank)
        class_key(bank, name)
        after = remove(bank, [name], by=BY)
        if not after.can_answer:
            raise Problem("conflict", f"class {name!r} is the last one; add another before you remove it")
        return after, None

    after, _ = await service.change(edit, bank)
    return Response(status_code=204, headers={"ETag": f'"{after.state_digest}"'})


@router.get("/v1/banks", responses={200: answer("BankList"), **_READ})
async def list_banks(
    service: Reading,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
) -> Response:
    """List the names of the banks of --banks, sorted; ``?bank=NAME`` asks for one."""
    names = await in_thread(service.engine.banks.names)
    return JSONResponse({"banks": names[offset : offset + limit], "count": len(names)})


@router.get("/v1/bank/history", responses={200: answer("History"), **_READ_BANK})
async def history(
    service: Reading,
    bank: Bank = None,
    offset: Annotated[int, Query(ge=0, description="steps to leave out, from the latest")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
) -> Response:
    """List the steps by which the bank was changed, the latest first, by this server and by ``sar-bank``."""
    whole = await service.engine.banks.whole(bank)
    steps = [_step(step) for step in whole.history[::-1][offset : offset + limit]]
    return answered({"steps": steps, "count": len(whole.history), "bank": whole.state_digest}, whole.state_digest)


@router.post(
    "/v1/bank/rollback",
    responses={200: answer("RolledBack"), **problems(401, 403, 404, 409, 412, 422, 507)},
    openapi_extra=request_body(Rollback),
)
async def roll_back(request: Request, service: Writable, bank: Bank = None, if_match: IfMatch = None) -> Response:
    """Go back to an earlier step of the history; this is a step too, and is final.

    Needs a server with a key and ``--bank``.
    """
    if not await request.body():
        raise Problem("bad-request", 'no body; expected {"to": STEP} or {"steps": COUNT}')
    target = await read_json(request, service, Rollback)
    if (target.to is None) == (target.steps is None):
        raise InputError("expected either to, the number of a step, or steps, how many to take back")

    def edit(bank: ClassBank) -> tuple[ClassBank, bool]:
        check_match(if_match, bank)
        if target.latest not in (None, bank.log.last):
            raise Problem("precondition-failed", f"step {target.latest} is not the latest any more; {bank.log.last} is")
        to = steps_back(bank, target.steps or 0) if target.to is None else target.to
        after = rollback(bank, to, by=BY)
        if after.encoder_digest != bank.encoder_digest:
            raise Problem("conflict", f"step {to} belongs to another bundle; use sar-bank rollback")
        if not after.can_answer:
            raise Problem("conflict", f"as after step {to} no class could be an answer")
        return after, after is not bank

    after, changed = await service.change(edit, bank)
    step = _step(after.history[-1]) if changed else None
    if step is not None:
        request.state.logged = {"step": step["n"], "to": step["to"]}
    return answered({"step": step, "classes": len(after.names), "bank": after.state_digest}, after.state_digest)


async def embedded(
    service: Service, images: Sequence[ImageInput], photos_only: bool
) -> tuple[PhotoSet, dict[bytes, int], str]:
    """Return photos, the number of each in the request by its digest, and the digest of the encoder.

    One that comes twice counts once.

    Raises:
        Problem: an image is bad; the first is named.
    """
    with service.lease() as engine, service.images.hold(len(images)):
        outcomes = await engine.line.each(images, lambda rows: rows, digests=True)
    labels = [f"image[{number}]" for number in range(len(images))]
    rows, digests = np.stack(values_of(outcomes, labels)), [outcome.digest for outcome in outcomes]
    by_digest = dict(zip(reversed(digests), reversed(range(len(digests))), strict=True))
    manifest = engine.bundle.manifest
    photo_set = PhotoSet.of(digests, rows, photos_only=photos_only or manifest.tokenizer is None)
    return photo_set, by_digest, manifest.encoder_digest


def check_match(if_match: str | None, bank: ClassBank, existing: str | None = None) -> None:
    """Check the digests of a header If-Match (RFC 9110, 13.1.1), of which weak ones never match.

    Raises:
        Problem: ``precondition-failed``: the bank has none of them; or the header is ``*``, and there is no class
            ``existing``.
    """
    if if_match is None:
        return
    tags = {tag.strip().strip('"') for tag in if_match.split(",")}
    if "*" not in tags and bank.state_digest not in tags:
        raise Problem("precondition-failed", f"classes were changed in the meantime; they are now {bank.state_digest}")
    if "*" in tags and existing is not None and bank.lookup.get(existing) is None:
        raise Problem("precondition-failed", "no such class; If-Match: * changes one that exists")


def shown_class(entry: Entry) -> dict[str, Any]:
    """Return a class as answers have it, with the phrases that were embedded and the settings that it has."""
    origin = "bundle" if entry.added is None else "added"
    shown: dict[str, Any] = {"name": entry.name, "origin": origin, "phrases": [*entry.texts]}
    if len(entry.photos):
        shown["photos"] = len(entry.photos)
    settings = {field: getattr(entry, field) for field in ("photos_only", "aliases", "threshold", "background")}
    return shown | {field: value for field, value in settings.items() if value not in (False, None, ())}


def _step(step: Step) -> dict[str, Any]:
    return {field: getattr(step, field) for field in ("n", "at", "action", "summary", "by", "to", "can_undo")}


def class_key(bank: ClassBank, name: str) -> str:
    """Return the key of a class, by name or alias.

    Raises:
        ClassNameError: No class can have this name.
        Problem: ``not-found``; the message of a small bank has names that are spelled alike.
    """
    position = bank.lookup.get(name)
    if position is None:
        raise Problem("not-found", bank.lookup.missing(clean_name(name), hint=len(bank.names) <= LARGE))
    return bank.keys[position]


def answered(content: dict[str, Any], etag: str, status: int = 200) -> Response:
    """Return an answer in JSON with the digest of the bank as its ETag."""
    return Response(to_json(content), status, {"ETag": f'"{etag}"'}, "application/json")
