"""Reading the body of a call with images: JSON with images in base64, a form, or the bytes of one image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sar_infer.server.http.request import decoded, parse, unknown_field, validation_problem
from sar_infer.server.model.engine import ImageInput
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service
from sar_infer.server.settings import Limits

FORM = "multipart/form-data"
BYTES = "application/octet-stream"
JSON = "application/json"
IMAGE = "image"
"""The field of a form for each image."""
_LISTS = ("classes", "phrases")
"""Fields of a form that may be repeated; of any other the last counts."""
Model = TypeVar("Model", bound=BaseModel)


def media_type(request: Request, default: str = "") -> str:
    """Return the content type of a request, without its parameters."""
    return request.headers.get("content-type", default).partition(";")[0].strip().lower()


def is_image(kind: str) -> bool:
    """Return whether a body of a content type is one image."""
    return kind.startswith("image/") or kind == BYTES


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


async def read_call(
    request: Request, service: Service, model: type[Model], fields: Sequence[str] = ()
) -> tuple[Model, Sequence[ImageInput]]:
    """Return the fields and the images of a call that is a form or, whatever its content type, JSON.

    Args:
        request: Its body has been read and counted already.
        service: Its limits apply.
        model: The fields of JSON, of which ``images`` has the images.
        fields: The fields that a form may have beside images.

    Raises:
        Problem: the body is malformed, or asks for too much.
    """
    if media_type(request) == FORM:
        return await _read_form(request, service.settings.limits, model, fields)
    call = await read_json(request, service, model)
    return call, await read_images(service, getattr(call, "images", None))


def check_count(count: int, limits: Limits) -> None:
    """Raise ``too-many-images`` if a call has more images than the limit."""
    if count > limits.images:
        raise Problem("too-many-images", f"expected at most {limits.images} images in a request, got {count}")


class _Parser(MultiPartParser):
    """A multipart parser that keeps files in memory, where the body is already, and reads text as UTF-8."""

    spool_max_size = 2**31

    @property
    def _charset(self) -> str:
        """Return UTF-8, whatever the client names: some of Python's codecs raise other errors or take hours."""
        return "utf-8"

    @_charset.setter
    def _charset(self, value: str) -> None:
        pass


async def _read_form(
    request: Request, limits: Limits, model: type[Model], fields: Sequence[str]
) -> tuple[Model, Sequence[ImageInput]]:
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
                problem = unknown_field(name, (IMAGE, *fields), None if file is None else IMAGE)
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
    try:
        return model.model_validate({"images": [""], **options}), images
    except ValidationError as error:
        raise validation_problem(error, model) from None
