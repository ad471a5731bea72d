"""Pictures on their way to a server: any form that a ``Classifier`` takes, as encoded bytes, in portions."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_infer.errors import ImageError, InputError

if TYPE_CHECKING:
    from sar_infer.images.load import ImageSource


@dataclass(frozen=True)
class Picture:
    """What a result calls it, and its bytes or the reason why there are none."""

    name: str
    data: bytes = b""
    error: str | None = None


@dataclass
class Sizes:
    """What goes into one request at most; less where a server has refused as much.

    Attributes:
        count: Pictures.
        total: Bytes of all pictures, with room for base64 within the 10 MiB that ``sar-serve`` takes by default.
    """

    count: int = 16
    total: int = 7 * 2**20

    def refused(self, pictures: Sequence[Picture], code: str) -> None:
        """Remember that a request was too large."""
        if code == "too-many-images":
            self.count = min(self.count, max(1, len(pictures) // 2))
        else:
            self.total = min(self.total, sum(len(picture.data) for picture in pictures) // 2)


class Portions:
    """Collects pictures until a request is full.

    Args:
        sizes: How much a request takes.
        count: Pictures of a request at most, where that is less.

    Raises:
        InputError: ``count`` is below 1.
    """

    def __init__(self, sizes: Sizes, count: int) -> None:
        if count < 1:
            raise InputError(f"expected batch_size of 1 or more, got {count}")
        self._sizes = sizes
        self._count = count
        self._held: list[Picture] = []

    def add(self, picture: Picture) -> list[Picture]:
        """Take one more picture; the pictures before it, where they make a request, else an empty list."""
        full = len(self._held) >= min(self._sizes.count, self._count)
        total = sum(len(held.data) for held in self._held) + len(picture.data)
        done = self.rest() if full or (self._held and total > self._sizes.total) else []
        self._held.append(picture)
        return done

    def rest(self) -> list[Picture]:
        """What is left."""
        held, self._held = self._held, []
        return held


def several(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """One picture or many, as many; an array or PIL image is one, though it can be iterated over."""
    single = isinstance(images, str | os.PathLike | bytes) or hasattr(type(images), "__array_interface__")
    return [images] if single else images  # type: ignore[list-item, return-value]


def load(source: ImageSource, index: int) -> Picture:
    """A picture by path, as encoded bytes, as PIL image or uint8 array; the last two become PNG, without loss."""
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else f"image[{index}]"
    try:
        if isinstance(source, bytes):
            return Picture(name, source)
        return Picture(name, _file(Path(source)) if isinstance(source, str | os.PathLike) else _png(source))
    except ImageError as error:
        return Picture(name, error=str(error))


def _file(path: Path) -> bytes:
    """In the words of ``images``, which is not imported for a file."""
    try:
        if not path.exists():
            raise ImageError("no such file")
        if not path.is_file():
            raise ImageError("not a file")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None


def _png(source: Any) -> bytes:
    """Upright RGB as the classifier makes it, or RGBA: what lies under transparent parts is the bundle's to say."""
    from PIL import Image, ImageOps

    from sar_infer.images.load import load_rgb

    picture = load_rgb(source)  # refuses what the classifier refuses
    if not isinstance(source, Image.Image):
        source = Image.fromarray(source) if source.shape[2:] == (4,) else picture
    if source.has_transparency_data and source.mode[0] not in "IF":
        picture = ImageOps.exif_transpose(source).convert("RGBA")
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
