"""Small pictures of photos, for pages and notebooks."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from sar_infer.errors import ImageError
from sar_infer.images.load import ImageSource, load_rgb

SIDE = 160
"""Pixels of the longer side."""
_QUALITY = 80


def file_of(photo: str) -> str | None:
    """Return the absolute path of a photo; None if its name is that of no file, as in a shard."""
    path = Path(photo)
    return str(path.absolute()) if path.is_file() else None


def short_name(photo: str) -> str:
    """Return the last folder and the file of a photo: other people may read a page, which names no other folder."""
    return "/".join(Path(photo).parts[-2:])


def small_jpeg(source: ImageSource, side: int = SIDE) -> bytes | None:
    """Return a photo as a small JPEG; None for a photo that cannot be read.

    The photo is decoded as every photo is, and only its pixels are encoded anew, without metadata of the file.

    Args:
        source: The photo.
        side: The longer side of the picture, in pixels; a smaller photo keeps its size.
    """
    try:
        image = load_rgb(source, fill=255, least=side)
    except ImageError:
        return None
    image.thumbnail((side, side))
    bare = Image.frombytes("RGB", image.size, image.tobytes())  # without Pillow's notes of the file, such as a comment
    stream = io.BytesIO()
    bare.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def picture_of(source: ImageSource, side: int = SIDE) -> str | None:
    """Return `small_jpeg` of a photo in a data URI; None for a photo that cannot be read."""
    jpeg = small_jpeg(source, side)
    return None if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
