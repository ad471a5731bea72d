"""Images to send: every form that a ``Classifier`` takes, as encoded bytes, in portions that fit one request."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_infer.client.exchange import Load, Steps
from sar_infer.errors import ImageError, InputError

if TYPE_CHECKING:
    from sar_infer.images.load import ImageSource


@dataclass(frozen=True)
class EncodedImage:
    """The name that a result gives an image, and its bytes or the reason why there are none."""

    name: str
    data: bytes = b""
    error: str | None = None


@dataclass
class RequestSizes:
    """The most that goes into one request; it shrinks if a server refuses as too large.

    Attributes:
        count: How many images.
        total: Bytes of all images, with room for base64 within the 10 MiB that ``sar-serve`` accepts by default.
    """

    count: int = 16
    total: int = 7 * 2**20

    def refused(self, images: Sequence[EncodedImage], code: str) -> None:
        """Shrink after a request was refused as too large."""
        if code == "too-many-images":
            self.count = min(self.count, max(1, len(images) // 2))
        else:
            self.total = min(self.total, sum(len(image.data) for image in images) // 2)


class Portions:
    """Images of a caller, in portions that fill a request each.

    Args:
        images: One image or several; taken as they are needed.
        sizes: The most that goes into a request.
        count: The caller's limit of images in a request.

    Raises:
        InputError: ``count`` is below 1.
    """

    def __init__(self, images: ImageSource | Iterable[ImageSource], sizes: RequestSizes, count: int) -> None:
        if count < 1:
            raise InputError(f"expected batch_size of 1 or more, got {count}")
        self._sources = enumerate(several(images))
        self._sizes = sizes
        self._count = count
        self._next: list[EncodedImage] = []

    def take(self) -> Steps[list[EncodedImage]]:
        """Return the images of the next request; none at the end."""
        for index, source in self._sources:
            portion, image = self._next, (yield Load(source, index))
            total = sum(len(one.data) for one in (*portion, image))
            if portion and (len(portion) >= min(self._sizes.count, self._count) or total > self._sizes.total):
                self._next = [image]
                return portion
            portion.append(image)
        portion, self._next = self._next, []
        return portion


def several(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """Return one image or many as an iterable; an array or PIL image is one, though it can be iterated over."""
    single = isinstance(images, str | os.PathLike | bytes) or hasattr(type(images), "__array_interface__")
    return [images] if single else images  # type: ignore[list-item, return-value]


def load(source: ImageSource, index: int) -> EncodedImage:
    """Return an image as encoded bytes; PIL images and uint8 arrays become PNG, without loss."""
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else f"image[{index}]"
    try:
        if isinstance(source, bytes):
            return EncodedImage(name, source)
        return EncodedImage(name, _file(Path(source)) if isinstance(source, str | os.PathLike) else _png(source))
    except ImageError as error:
        return EncodedImage(name, error=str(error))


def _file(path: Path) -> bytes:
    """Read a file; the messages are those of ``sar_infer.images``, which is not imported for a file."""
    try:
        if not path.exists():
            raise ImageError("no such file")
        if not path.is_file():
            raise ImageError("not a file")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None


def _png(source: Any) -> bytes:
    """Encode upright RGB as the classifier makes it, or RGBA: the bundle decides on the colour under transparency."""
    from PIL import Image, ImageOps

    from sar_infer.images.load import load_rgb

    image = load_rgb(source)  # refuses what the classifier refuses
    if not isinstance(source, Image.Image):
        source = Image.fromarray(source) if source.shape[2:] == (4,) else image
    if source.has_transparency_data and source.mode[0] not in "IF":
        image = ImageOps.exif_transpose(source).convert("RGBA")
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
