"""Reading ``multipart/form-data``: images in parts named ``image``, and text fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sar_infer.server.http.request import too_many_images, unknown_field
from sar_infer.server.model.engine import ImageInput
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

IMAGE = "image"


@dataclass(frozen=True)
class Form:
    """The content of a form: images, and the texts of each field in the order given."""

    images: Sequence[ImageInput]
    texts: dict[str, list[str]]


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


async def read_form(request: Request, limits: Limits, fields: Sequence[str], most_texts: int) -> Form:
    """Return the content of a form.

    Args:
        request: Its body has been read and counted already.
        limits: Limits of a call.
        fields: The names of all fields, ``image`` among them.
        most_texts: Text fields at most.

    Raises:
        Problem: it is no form, has no image or too much of something, or a field that there is not.
    """
    parser = _Parser(
        request.headers,
        request.stream(),
        max_files=limits.images + 1,
        max_fields=most_texts,
        max_part_size=limits.body_bytes,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise too_many_images(f"more than {limits.images}", limits) from None
        if error.message.startswith("Too many fields"):
            raise Problem("too-many-classes", f"expected at most {limits.classes} class names and phrases") from None
        raise Problem("bad-request", f"not multipart/form-data: {error.message}") from None
    try:
        content = await _parts(form, fields)
    finally:
        await form.close()
    if not content.images:
        raise Problem("bad-request", "no image; expected one or more parts named 'image'")
    return content


async def _parts(form: FormData, fields: Sequence[str]) -> Form:
    images: list[ImageInput] = []
    texts: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if name not in fields:
            near = IMAGE if isinstance(value, UploadFile) else None
            raise Problem("invalid-request", f"{name:.80}: {unknown_field(name, fields, near)}")
        if name == IMAGE and isinstance(value, UploadFile):
            images.append(await value.read())
        elif name == IMAGE or isinstance(value, UploadFile):
            raise Problem("invalid-request", f"field {name!r}: expected {'a file' if name == IMAGE else 'text'}")
        else:
            texts.setdefault(name, []).append(value)
    return Form(images, texts)
