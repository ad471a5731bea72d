"""What a call of ``/v1/classify`` asks for, in any of its three forms: a raw picture, multipart, or JSON."""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sar_infer.errors import ImageError
from sar_infer.results import DecisionOptions
from sar_infer.server.class_names import cleaned
from sar_infer.server.http.models import ClassifyOptions, ClassifyRequest, Mode
from sar_infer.server.model.engine import Picture
from sar_infer.server.model.names import Phrases
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service
from sar_infer.server.settings import Limits

Model = TypeVar("Model", bound=BaseModel)
_RAW = "application/octet-stream"
_FIELDS = ("image", "classes", "top_k", "mode", "unknown", "coverage", "explain")
_MOST_ERRORS = 1000
_MOST_VALUES = 2**16
_MOST_PARTS = 2**13
"""Lists, objects and fields of a JSON body, beside those of class names."""


@dataclass(frozen=True)
class Call:
    """A call, checked.

    Attributes:
        pictures: In the order given.
        classes: Phrases by class name.
        only: Choose from ``classes`` alone.
        top_k: How many classes to answer.
        judging: What to tell beside them.
        single: A raw body: a bad picture is a bad request.
    """

    pictures: Sequence[Picture]
    classes: Phrases
    only: bool
    top_k: int
    judging: DecisionOptions
    single: bool


async def read_call(request: Request, query: ClassifyOptions, service: Service) -> Call:
    """Read a call; what the body says goes before what the query says.

    Args:
        request: Its body has been read and counted already.
        query: The options of the query.
        service: Its limits say what the call may hold.

    Raises:
        Problem: the body is of no known form or malformed, or asks for too much.
    """
    limits = service.settings.limits
    kind = request.headers.get("content-type", _RAW).partition(";")[0].strip().lower()
    pictures: Sequence[Picture]
    given: ClassifyOptions | ClassifyRequest
    if kind.startswith("image/") or kind == _RAW:
        body = await request.body()
        if not body:
            raise Problem("bad-request", "the body is empty; expected the bytes of a picture")
        pictures, given = [body], query
    elif kind == "multipart/form-data":
        pictures, given = await _multipart(request, limits)
    elif kind == "application/json":
        body = await request.body()
        given = call = await service.in_turn(len(body), lambda: parse(ClassifyRequest, body, limits))
        check_count(len(call.images), limits)
        pictures = [decoded(text) for text in call.images]
    else:
        raise Problem(
            "unsupported-media-type",
            f"expected image/*, multipart/form-data or application/json, got {kind!r:.80}; "
            "with curl: -H 'Content-Type: image/jpeg' --data-binary @photo.jpg, "
            "or -H 'Content-Type: application/json' -d …",
        )
    check_count(len(pictures), limits)
    classes = cleaned(given.classes or query.classes, limits)
    only = alone(given.mode or query.mode, bool(classes))
    return Call(pictures, classes, only, given.top_k or query.top_k or 5, _judging(given, query), single=given is query)


def _judging(given: ClassifyOptions | ClassifyRequest, query: ClassifyOptions) -> DecisionOptions:
    return DecisionOptions(
        given.unknown or query.unknown,
        coverage=given.coverage or query.coverage,
        explain=bool(query.explain if given.explain is None else given.explain),
    )


def alone(mode: Mode | None, given: bool) -> bool:
    """Whether a call chooses from its own classes alone.

    Args:
        mode: As asked for; None is ``extend`` where the call has classes, else ``bank``.
        given: The call has classes.

    Raises:
        Problem: the mode needs classes and there are none, or takes none.
    """
    mode = mode or ("extend" if given else "bank")
    if (mode == "bank") == given:
        expected = "no classes" if mode == "bank" else "classes to choose from"
        raise Problem("invalid-request", f"mode {mode!r}: expected {expected}")
    return mode == "only"


def parse(kind: type[Model], body: bytes, limits: Limits, values: int = _MOST_VALUES) -> Model:
    """Return a JSON body as a model; where it may be large, call it through ``Service.in_turn``.

    Args:
        kind: The model.
        body: The JSON.
        limits: What the call may hold.
        values: Values in lists and objects, at most.

    Raises:
        Problem: ``bad-request`` where it is no JSON, ``invalid-request`` where a field is wrong, which it names, or
            there is too much of them.
    """
    _check_values(body, values, _MOST_PARTS + 4 * limits.classes)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error, kind) from None


def _check_values(body: bytes, values: int, parts: int) -> None:
    """Refuse JSON of very many pieces before it is parsed, which would hold the event loop: 10 MiB take milliseconds.

    Punctuation is counted, in strings too, where those of sound requests have little.
    """
    if len(body) <= min(values, parts):
        return
    signs = np.frombuffer(body, np.uint8)
    commas, lists, objects, fields = (int(np.count_nonzero(signs == sign)) for sign in b",[{:")
    if commas >= values or lists + objects + fields > parts:
        raise Problem(
            "invalid-request",
            f"expected JSON of at most {values} values, and {parts} lists, objects and fields, "
            f"got {commas + 1} and {lists + objects + fields}; tensors can be sent as binary data",
        )


def _invalid(error: ValidationError, kind: type[BaseModel]) -> Problem:
    if error.error_count() > _MOST_ERRORS:  # to list them all would take seconds
        return Problem("invalid-request", f"{error.error_count()} fields are wrong or unknown")
    return invalid(error.errors(include_url=False, include_context=False, include_input=False), kind)


def invalid(errors: Sequence[Any], kind: type[BaseModel]) -> Problem:
    """Return the problem that pydantic's errors about a model amount to: the first, and how many there are."""
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")  # a misspelt field explains a missing one
    if first["type"] == "json_invalid":
        return Problem("bad-request", f"the body is not JSON: {first['msg']}")
    where = ".".join(str(part) for part in first["loc"]) or "body"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    what = first["msg"]
    if first["type"] == "extra_forbidden":
        known = kind.model_fields if len(first["loc"]) - (first["loc"][0] == "query") == 1 else ()
        what = _unknown(str(first["loc"][-1]), known)
    return Problem("invalid-request", f"{where:.80}: {what}{more}")


def _unknown(name: str, known: Collection[str]) -> str:
    """Say that there is no such field, which there are, and which is spelt nearly so."""
    near = difflib.get_close_matches(name[:80], known, 1)
    hint = f", perhaps {near[0]}" if near else ""
    return f"unknown field{hint}" + (f"; expected some of {', '.join(known)}" if known else "")


def decoded(text: str) -> Picture:
    """The bytes of a picture in base64, with or without ``data:…;base64,`` before it."""
    if text.startswith("data:"):
        header, comma, text = text.partition(",")
        if not comma or not header.endswith(";base64"):
            return ImageError("expected data:image/…;base64,…")
    elif text.startswith(("http://", "https://", "ftp://", "file://")):
        return ImageError("URLs are not fetched; send the picture itself, in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ImageError("not valid base64")


def check_count(count: int, limits: Limits) -> None:
    """Raise ``too-many-images`` where there are more than the limit."""
    if count > limits.images:
        raise _too_many(str(count), limits)


def _too_many(count: str, limits: Limits) -> Problem:
    return Problem("too-many-images", f"expected at most {limits.images} images in a request, got {count}")


class _Parser(MultiPartParser):
    """Keeps files in memory, where the body is already, and reads text as UTF-8."""

    spool_max_size = 2**31

    @property
    def _charset(self) -> str:
        """Not the one that the client names: some of Python's codecs raise what nobody expects, or take hours."""
        return "utf-8"

    @_charset.setter
    def _charset(self, given: str) -> None:
        pass


async def _multipart(request: Request, limits: Limits) -> tuple[list[Picture], ClassifyRequest]:
    parser = _Parser(
        request.headers,
        request.stream(),
        max_files=limits.images + 1,
        max_fields=limits.classes + len(_FIELDS) - 2,
        max_part_size=limits.body_bytes,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(f"more than {limits.images}", limits) from None
        if error.message.startswith("Too many fields"):
            raise Problem("too-many-classes", f"expected at most {limits.classes} class names and phrases") from None
        raise Problem("bad-request", f"not multipart/form-data: {error.message}") from None
    try:
        pictures, options = await _parts(form)
    finally:
        await form.close()
    if not pictures:
        raise Problem("bad-request", "no picture; expected one or more parts named 'image'")
    try:
        return pictures, ClassifyRequest.model_validate(options)
    except ValidationError as error:
        raise _invalid(error, ClassifyRequest) from None


async def _parts(form: FormData) -> tuple[list[Picture], dict[str, Any]]:
    pictures: list[Picture] = []
    options: dict[str, Any] = {"images": [""], "classes": []}
    for name, value in form.multi_items():
        if name not in _FIELDS:
            raise Problem("invalid-request", f"{name:.80}: {_unknown(name, _FIELDS)}")
        if name == "image" and isinstance(value, UploadFile):
            pictures.append(await value.read())
        elif name == "image" or isinstance(value, UploadFile):
            raise Problem("invalid-request", f"field {name!r}: expected {'a file' if name == 'image' else 'text'}")
        elif name == "classes":
            options["classes"].append(value)
        else:
            options[name] = value
    return pictures, options
