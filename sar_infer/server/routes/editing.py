"""Below ``/v1/classes/NAME``: the photos of a class, its new name, its settings; and photos that move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from sar_infer.bank import ClassBank, Entry, edits
from sar_infer.errors import BankError
from sar_infer.server.model.banks import BUSY_SECONDS, in_thread
from sar_infer.server.model.line import ImageInput
from sar_infer.server.openapi import IMAGE_TYPES, answer, form, problems, request_body
from sar_infer.server.problems import Problem
from sar_infer.server.request import (
    IMAGES,
    MOST_ITEMS,
    Bank,
    Model,
    Reading,
    Texts,
    Writable,
    clean_name,
    read_call,
    read_images,
    read_json,
)
from sar_infer.server.routes.classes import (
    BY,
    MOST,
    ClassRoute,
    IfMatch,
    Name,
    answered,
    check_match,
    class_key,
    embedded,
    shown_class,
)
from sar_infer.server.service import Service

router = APIRouter(tags=["classes"], route_class=ClassRoute)
_Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
_CHANGES = problems(401, 403, 404, 409, 412, 422, 503, 507)


class PhotosOfClass(BaseModel):
    """Photos of a class: the images themselves, or their digests, as the list of its photos has them."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[Texts, Field(min_length=1, description=IMAGES)] | None = None
    digests: Annotated[list[_Digest], Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True)] | None = None


class PhotosToMove(PhotosOfClass):
    """Photos, and the class that gets them."""

    to: str = Field(description="name or alias of the class that gets them")


class NewName(BaseModel):
    """The new name of a class."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(description="the new name")
    embed: bool = Field(False, description="embed the new name too; else the class keeps the embedding of the old one")


class ClassSettings(BaseModel):
    """The settings of a class; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    aliases: Texts = Field([], description="all other names of the class; they replace those that it has")
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="lowest score at which the class is predicted; null: any"
    )
    background: bool = Field(False, description="include in the softmax, never predict")
    photos_only: bool = Field(False, description="use only its photos, since its name has no meaning")


@router.get("/v1/classes/{name:text}/photos", responses={200: answer("PhotoList"), **problems(401, 404, 422)})
async def list_photos(
    service: Reading,
    name: Name,
    bank: Bank = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
) -> Response:
    """List the photos of a class that were added to the bank, the oldest first: when, and by whom."""
    whole = await service.engine.banks.whole(bank)
    photos = edits.photo_steps(whole, whole.entries[class_key(whole, name)].name)
    content = {"photos": photos[offset : offset + limit], "count": len(photos), "bank": whole.state_digest}
    return answered(content, whole.state_digest)


@router.delete(
    "/v1/classes/{name:text}/photos",
    responses={200: answer("ClassEntry"), **_CHANGES},
    openapi_extra=request_body(PhotosOfClass, form(), binary=IMAGE_TYPES),
)
async def remove_photos(
    request: Request, service: Writable, name: Name, bank: Bank = None, if_match: IfMatch = None
) -> Response:
    """Remove photos of a class, from the history too, so that this cannot be undone; the class stays.

    All of them or none: a photo that is not counted for the class is refused.
    """
    if not await request.body():
        raise Problem("bad-request", 'no body; expected images, or {"digests": ["…"]}')
    call, images = await read_call(request, service, PhotosOfClass, PhotosOfClass())
    gone = await _digests(service, call, images)
    return await _change(service, bank, name, if_match, lambda whole: edits.forget_photos(whole, name, gone, by=BY))


@router.post(
    "/v1/classes/{name:text}/rename",
    responses={200: answer("ClassEntry"), **_CHANGES},
    openapi_extra=request_body(NewName),
)
async def rename_class(
    request: Request, service: Writable, name: Name, bank: Bank = None, if_match: IfMatch = None
) -> Response:
    """Rename a class. It keeps its position, its photos and, unless ``embed`` is true, its embedding."""
    call = await _fields(request, service, NewName, '{"to": "NAME"}')
    new = clean_name(call.to)
    with service.lease() as engine:
        row = (await in_thread(lambda: engine.classifier.embed_names([new])))[0] if call.embed else None

    def rename(whole: ClassBank) -> ClassBank:
        if row is not None and whole.encoder_digest != engine.bundle.manifest.encoder_digest:
            raise Problem("overloaded", "the bundle was replaced meanwhile; send the call again", BUSY_SECONDS)
        return edits.rename(whole, name, new, row, by=BY)

    return await _change(service, bank, name, if_match, rename)


@router.patch(
    "/v1/classes/{name:text}",
    responses={200: answer("ClassEntry"), **_CHANGES},
    openapi_extra=request_body(ClassSettings),
)
async def set_class(
    request: Request, service: Writable, name: Name, bank: Bank = None, if_match: IfMatch = None
) -> Response:
    """Set aliases, threshold, background or photos only of a class; what the body leaves out stays."""
    call = await _fields(
        request, service, ClassSettings, '{"aliases": ["NAME"]}, {"threshold": 0.4} or {"background": true}'
    )
    settings: dict[str, Any] = call.model_dump(exclude_unset=True)
    if not settings:
        raise Problem("invalid-request", f"nothing to set; expected some of {', '.join(ClassSettings.model_fields)}")
    if "aliases" in settings:
        settings["aliases"] = [clean_name(alias) for alias in call.aliases]

    def set_fields(whole: ClassBank) -> ClassBank:
        if call.photos_only and not len(whole.entry(name).photos):
            raise Problem("conflict", f"class {name!r:.80} has no photos, so its name is needed; add photos first")
        return edits.set_class(whole, name, by=BY, **settings)

    return await _change(service, bank, name, if_match, set_fields)


@router.post(
    "/v1/photos/move", responses={200: answer("ClassEntry"), **_CHANGES}, openapi_extra=request_body(PhotosToMove)
)
async def move_photos(request: Request, service: Writable, bank: Bank = None, if_match: IfMatch = None) -> Response:
    """Give photos that classes of the bank have to another of its classes: one step, all of them or none."""
    call = await _fields(request, service, PhotosToMove, '{"digests": ["…"], "to": "NAME"}')
    photos = await _digests(service, call, await read_images(service, call.images))
    return await _change(
        service, bank, call.to, if_match, lambda whole: edits.move_photos(whole, photos, call.to, by=BY)
    )


async def _digests(service: Service, call: PhotosOfClass, images: Sequence[ImageInput]) -> dict[bytes, str]:
    """Return the digests of a call's photos, and how it names each.

    Raises:
        Problem: There are neither images nor digests, or both; or an image is bad.
    """
    if bool(images) == (call.digests is not None):
        raise Problem("invalid-request", "expected either images or digests")
    if not images:
        return {bytes.fromhex(digest): digest for digest in call.digests or ()}
    _, numbers, _ = await embedded(service, images, photos_only=False)
    return {digest: f"image[{number}]" for digest, number in numbers.items()}


async def _fields(request: Request, service: Service, model: type[Model], example: str) -> Model:
    """Return a JSON body as a model.

    Raises:
        Problem: There is none, or as of ``read_json``.
    """
    if not await request.body():
        raise Problem("bad-request", f"no body; expected {example}")
    return await read_json(request, service, model)


async def _change(
    service: Service, bank: str | None, name: str, if_match: str | None, edit: Callable[[ClassBank], ClassBank]
) -> Response:
    """Change a class that is there, and answer with the class as it is then.

    Raises:
        Problem: ``not-found``, ``precondition-failed``, or ``conflict``: the bank does not allow the change.
    """

    def checked(whole: ClassBank) -> tuple[ClassBank, Entry]:
        check_match(if_match, whole)
        key = class_key(whole, name)
        try:
            after = edit(whole)
        except BankError as error:
            raise Problem("conflict", str(error)) from None
        if not after.can_answer:
            raise Problem("conflict", f"class {name!r:.80} is the last one that can be predicted")
        return after, after.entries[key]

    after, entry = await service.change(checked, bank)
    return answered(shown_class(entry), after.state_digest)
