"""Reading a request, for all routes: the four shapes of a call (image, form, JSON, ``curl -d``), and class names.

Functions that FastAPI calls are coroutines, because it would run plain functions in a thread of their own.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from fastapi import Depends, Query, Request
from pydantic import BaseModel, Field, StringConstraints, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sar_infer.errors import ClassNameError, ImageError
from sar_infer.server.model.banks import NAME
from sar_infer.server.model.line import ImageInput
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service
from sar_infer.server.settings import Limits

Model = TypeVar("Model", bound=BaseModel)
Mode = Literal["bank", "extend", "only"]
"""Choose from the bank, from the bank and the names of the call, or only from the names of the call."""
MAX_TOP_K = 1000
MOST_ITEMS = 20_000
"""Items of any list in a body, so that it is checked quickly; what a server accepts is in its ``Limits``."""
Texts = Annotated[list[str], Field(max_length=MOST_ITEMS, fail_fast=True)]
IMAGES = "base64, or data:image/…;base64,… URIs"
"""Description of the field of a request."""
_MOST_VALUES = 2**16
_MOST_PARTS = 2**13
"""Lists, objects and fields of a JSON body, in addition to those of class names."""
FORM = "multipart/form-data"
BYTES = "application/octet-stream"
_CURL = "application/x-www-form-urlencoded"
"""The content type that ``curl -d`` states for any body."""
IMAGE = "image"
"""The field of a form for each image."""
_LISTS = ("classes", "phrases")
"""Fields of a form that may be repeated; of any other the last counts."""
LONGEST_TEXT = 256
"""Characters of a name or phrase at most."""
MOST_PHRASES = 256
"""Phrases of a class at most."""
_NOT_UTF_8 = "\ufffd"
"""The character that servers put for bytes in a path that are not UTF-8."""


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _reading(request: Request, service: Annotated[Service, Depends(_service)]) -> Service:
    """Return the service if the route knows every field of the query, and has a body if one was sent."""
    route = request.scope["route"]
    if "requestBody" not in (route.openapi_extra or {}) and (body := await request.body()):
        what = f"{request.method} {request.url.path}"
        raise Problem("bad-request", f"{what:.80}: expected no body, got {len(body)} bytes; nothing was done")
    fields = [field.alias for field in route.dependant.query_params]
    if unknown := [name for name in request.query_params if name not in fields]:
        raise Problem("invalid-request", f"query.{unknown[0]:.80}: {_unknown_field(unknown[0], fields)}")
    return service


async def _keyed(request: Request, service: Annotated[Service, Depends(_service)]) -> Service:
    """Return the service if it has a key; ``front`` has checked that this request carries it."""
    if service.settings.key is None:
        also = "" if service.settings.bank else ", to change classes also with --bank FILE"
        raise Problem("writes-disabled", f"this server was started without a key; start it with SAR_API_KEY{also}")
    return await _reading(request, service)


async def _writable(service: Annotated[Service, Depends(_keyed)]) -> Service:
    if not service.settings.writable:
        raise Problem("writes-disabled", "this server has no bank file; start it with --bank FILE, or --banks FOLDER")
    return service


BankName = Annotated[str, StringConstraints(pattern=NAME)]
Bank = Annotated[BankName | None, Query(description="a bank of --banks, by its name; by default that of --bank")]
"""The bank that a request asks for."""
Serving = Annotated[Service, Depends(_service)]
"""The service, for routes that ignore what they do not know."""
Reading = Annotated[Service, Depends(_reading)]
"""The service, for routes that refuse a body or a field of the query that they do not know, as the next two do."""
Keyed = Annotated[Service, Depends(_keyed)]
"""The service of a server that has a key."""
Writable = Annotated[Service, Depends(_writable)]
"""The service of a server whose bank can be changed."""


async def read_call(
    request: Request, service: Service, model: type[Model], alone: Model | None = None
) -> tuple[Model, Sequence[ImageInput]]:
    """Return the fields and the images of a call that is JSON, a form or the bytes of one image.

    Args:
        request: Its body has been read and counted already.
        service: Its limits apply.
        model: The fields of JSON and of a form, of which ``images`` has the images.
        alone: The fields of a call that is one image; None if a call may not be one.

    Raises:
        Problem: the body is malformed, of another type, or asks for too much.
    """
    kind = request.headers.get("content-type", BYTES).partition(";")[0].strip().lower()
    if kind == FORM:
        return await _read_form(request, service.settings.limits, model)
    if kind == "application/json" or (kind == _CURL and (await request.body()).lstrip()[:1] == b"{"):
        call = await read_json(request, service, model)
        return call, await read_images(service, getattr(call, "images", None))
    if alone is None or not (kind.startswith("image/") or kind == BYTES):
        raise Problem(
            "unsupported-media-type",
            f"expected {'image/*, ' if alone else ''}multipart/form-data or application/json, got {kind!r:.80}; "
            "with curl: -H 'Content-Type: image/jpeg' --data-binary @photo.jpg, "
            "or -H 'Content-Type: application/json' -d …",
        )
    image = await request.body()
    if not image:
        raise Problem("bad-request", "the body is empty; expected the bytes of an image")
    return alone, [image]


async def read_json(request: Request, service: Service, model: type[Model]) -> Model:
    """Return a JSON body, whatever its content type, as a model.

    Raises:
        Problem: see ``parse``.
    """
    body = await request.body()
    return await service.in_turn(len(body), lambda: parse(model, body, service.settings.limits))


async def read_images(service: Service, texts: Sequence[str] | None) -> list[ImageInput]:
    """Return images that came in base64.

    Raises:
        Problem: ``too-many-images``.
    """
    check_count(len(texts or ()), service.settings.limits)
    return await service.in_turn(sum(map(len, texts or ())), lambda: [decoded(text) for text in texts or ()])


def parse(kind: type[Model], body: bytes, limits: Limits) -> Model:
    """Return a JSON body as a model; call it through ``Service.in_turn`` if the body may be large.

    JSON of very many values is refused before it is parsed, because that would block the event loop for long: counting
    punctuation takes milliseconds for 10 MiB. Punctuation in strings counts too, of which valid requests have little.

    Raises:
        Problem: ``bad-request`` if it is not JSON; ``invalid-request``, naming the field, if a field is wrong, or if
            there are too many values or fields.
    """
    parts = _MOST_PARTS + 4 * limits.classes
    if len(body) > parts:
        signs = np.frombuffer(body, np.uint8)
        commas, lists, objects, fields = (int(np.count_nonzero(signs == sign)) for sign in b",[{:")
        if commas >= _MOST_VALUES or lists + objects + fields > parts:
            raise Problem(
                "invalid-request",
                f"expected JSON of at most {_MOST_VALUES} values, and {parts} lists, objects and fields, "
                f"got {commas + 1} and {lists + objects + fields}",
            )
    return checked(kind, body)


def checked(kind: type[Model], content: bytes | Mapping[str, Any], of: str = "") -> Model:
    """Return JSON, or fields, as a model.

    Raises:
        Problem: see ``parse``; ``of`` comes before the field's name.
    """
    try:
        return kind.model_validate_json(content) if isinstance(content, bytes) else kind.model_validate(content)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False, include_input=False), kind, of) from None


def invalid(errors: Sequence[Any], kind: type[BaseModel], of: str = "") -> Problem:
    """Return pydantic's errors about a model as a problem, which names the first and says how many there are."""
    # An unknown field comes first: it may be another one, misspelt, which is then missing.
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    if first["type"] == "json_invalid":
        return Problem("bad-request", f"the body is not JSON: {first['msg']}")
    field = of + ".".join(map(str, first["loc"])) or "body"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    message = first["msg"]
    if first["type"] == "extra_forbidden":
        field_names = kind.model_fields if len(first["loc"]) == 1 else ()
        message = _unknown_field(str(first["loc"][-1]), field_names)
    return Problem("invalid-request", f"{field:.80}: {message}{more}")


def _unknown_field(name: str, field_names: Collection[str], near: str | None = None) -> str:
    """Say that a field is unknown, which fields there are, and which one was meant: by default one of similar name."""
    near = near or next(iter(difflib.get_close_matches(name[:80], field_names, 1)), None)
    hint = f", perhaps {near}" if near else ""
    return f"unknown field{hint}" + (f"; expected some of {', '.join(field_names)}" if field_names else "")


def decoded(text: str) -> ImageInput:
    """Decode an image in base64, with or without ``data:…;base64,`` before it; return an error if it is malformed."""
    if text.startswith("data:"):
        header, comma, text = text.partition(",")
        if not comma or not header.endswith(";base64"):
            return ImageError("expected data:image/…;base64,…")
    elif text.startswith(("http://", "https://", "ftp://", "file://")):
        return ImageError("URLs are not fetched; send the image itself, in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ImageError("not valid base64")


def check_count(count: int, limits: Limits) -> None:
    """Raise ``too-many-images`` if a call has more images than the limit."""
    if count > limits.images:
        raise Problem("too-many-images", f"expected at most {limits.images} images in a request, got {count}")


class _Parser(MultiPartParser):
    """A multipart parser that keeps files in memory, where the body is already, and reads text as UTF-8."""

    spool_max_size = 2**31
    _charset = property(lambda _: "utf-8", lambda _self, _value: None)
    """UTF-8, whatever the client names: some of Python's codecs raise other errors or take hours."""


class _BytesParser(_Parser):
    """A parser that reads text as Latin-1, which has a character for each byte."""

    _charset = property(lambda _: "latin-1", lambda _self, _value: None)


async def read_image(request: Request, limits: Limits, field: str) -> bytes:
    """Return the one image of a request: the body, or a field of a form, which clients may send without a file name.

    Raises:
        Problem: the form is malformed, or has not one such field.
    """
    if request.headers.get("content-type", BYTES).partition(";")[0].strip().lower() != FORM:
        return await request.body()
    try:
        form = await _BytesParser(request.headers, request.stream(), max_part_size=limits.body_bytes).parse()
    except MultiPartException as error:
        raise Problem("bad-request", f"not multipart/form-data: {error.message}") from None
    values = form.getlist(field)
    if len(values) != 1:
        raise Problem("bad-request", f"expected one image, in a part named {field!r}, got {len(values)}")
    (value,) = values
    return value.encode("latin-1") if isinstance(value, str) else await value.read()


async def _read_form(request: Request, limits: Limits, model: type[Model]) -> tuple[Model, Sequence[ImageInput]]:
    fields = [name for name in model.model_fields if name != "images"]
    parser = _Parser(
        request.headers,
        request.stream(),
        max_files=limits.images,
        max_fields=sum(limits.classes if field in _LISTS else 1 for field in fields),
        max_part_size=limits.body_bytes,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Problem("too-many-images", f"expected at most {limits.images} images in a request") from None
        if error.message.startswith("Too many fields"):
            raise Problem("too-many-classes", f"expected at most {limits.classes} class names and phrases") from None
        raise Problem("bad-request", f"not multipart/form-data: {error.message}") from None
    values: dict[str, list[Any]] = {}
    try:
        for name, value in form.multi_items():
            file = value if isinstance(value, UploadFile) else None
            if name not in (IMAGE, *fields):
                problem = _unknown_field(name, (IMAGE, *fields), None if file is None else IMAGE)
                raise Problem("invalid-request", f"{name:.80}: {problem}")
            if (file is None) == (name == IMAGE):
                raise Problem("invalid-request", f"field {name!r}: expected {'text' if file else 'a file'}")
            values.setdefault(name, []).append(value if file is None else await file.read())
    finally:
        await form.close()
    images = values.pop(IMAGE, None)
    if images is None:
        raise Problem("bad-request", "no image; expected one or more parts named 'image'")
    options = {name: texts if name in _LISTS else texts[-1] for name, texts in values.items()}
    return checked(model, {"images": [""], **options}), images


def chooses_only(mode: Mode | None, has_classes: bool) -> bool | None:
    """Return whether a call chooses only from its own classes; None leaves it to the bank (`build_class_set`).

    Args:
        mode: As requested; None is ``bank`` if the call has no classes.
        has_classes: The call has classes.

    Raises:
        Problem: the mode needs classes and there are none, or it takes none.
    """
    if mode is None:
        return None
    if (mode == "bank") == has_classes:
        expected = "no classes" if mode == "bank" else "classes to choose from"
        raise Problem("invalid-request", f"mode {mode!r}: expected {expected}")
    return mode == "only"


def is_current(etag: str, if_none_match: str | None) -> bool:
    """Return whether a client has what it asks for already, by the header ``If-None-Match``."""
    etags = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    return etag in etags or "*" in etags


def clean_name(text: str) -> str:
    """Return a name or phrase in NFC, with single spaces.

    Raises:
        ClassNameError: empty, longer than ``LONGEST_TEXT``, or with control characters or lone surrogates.
    """
    if len(text) <= 4 * LONGEST_TEXT:  # longer text stays too long, and could take hours
        text = unicodedata.normalize("NFC", text)
    shown = repr(text if len(text) <= 40 else text[:40] + "…")
    if len(text) > LONGEST_TEXT:
        raise ClassNameError(f"class name {shown} has {len(text)} characters, {LONGEST_TEXT} are allowed; shorten it")
    if any(unicodedata.category(character) in ("Cc", "Cs") or character == _NOT_UTF_8 for character in text):
        raise ClassNameError(f"class name {shown} contains a control character or a lone surrogate; leave it out")
    if not text.split():
        raise ClassNameError(f"class name {shown} is empty")
    return " ".join(text.split())


def clean_phrases(name: str, phrases: Sequence[str]) -> tuple[str, ...]:
    """Return the phrases of a class, each cleaned like a name.

    Raises:
        ClassNameError: no phrase, more than ``MOST_PHRASES``, or one that cannot be used.
    """
    if not 1 <= len(phrases) <= MOST_PHRASES:
        raise ClassNameError(f"class name {name!r} has {len(phrases)} phrases; expected 1 to {MOST_PHRASES}")
    return tuple(map(clean_name, phrases))


def cleaned(classes: Sequence[str] | Mapping[str, Sequence[str]] | None, limits: Limits) -> dict[str, tuple[str, ...]]:
    """Return phrases by class name; a name without phrases is its own phrase, and of a repeated name the first counts.

    Raises:
        ClassNameError: a name or phrase is empty, too long, or holds control characters.
        Problem: ``too-many-classes``.
    """
    pairs = [*classes.items()] if isinstance(classes, Mapping) else [(name, (name,)) for name in classes or ()]
    count = sum(len(phrases) for _, phrases in pairs)
    if count > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} class names and phrases, got {count}")
    result: dict[str, tuple[str, ...]] = {}
    for name, phrases in pairs:
        result.setdefault(clean_name(name), clean_phrases(name, phrases))
    return result
