"""Opening pictures that nobody vouches for: any input form in, an upright RGB picture or an ImageError out.

The header is read first and the size judged before a single pixel is decoded. The format is told by content, never by
file name, and only those in ``FORMATS`` are tried (MPO counts as JPEG); of several frames the first is taken.
"""

from __future__ import annotations

import io
import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from sar_infer.errors import ImageError
from sar_infer.image_price import read_header
from sar_infer.preprocess import normalise

ImageSource = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
"""A path, encoded bytes, a PIL image, or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""
_PLUGINS: tuple[Any, ...] = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)
MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384
MAX_RATIO = 100
MAX_SCANS = 64
"""Of a JPEG: each costs a pass over the whole picture, however few bytes it has. Progressive ones have about ten."""
_READING = tuple(threading.Lock() for _ in range(61))
"""Of PIL images, by identity: one that was opened and not yet read must be read by one thread alone."""
_SCAN = b"\xff\xda"
_END = b"\xd9"
_MARK = re.compile(rb"\xff+([\x02-\xcf\xd8-\xfe])")
"""Begins a segment, whose length follows; what is left out has none and may stand in the coded data."""


def load_rgb(
    source: ImageSource,
    fill: int = 0,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    least: int | None = None,
) -> Image.Image:
    """Decode one picture.

    Args:
        source: The picture.
        fill: Grey level 0..255 laid under transparent parts.
        formats: Those of ``FORMATS`` that files and encoded bytes may have.
        max_pixels: Largest width times height.
        least: A JPEG may be decoded at a half, a quarter or an eighth of its size, as long as its short side keeps so
            many pixels (see ``preprocess.least_side``); None decodes every pixel.

    Raises:
        ImageError: not a picture, not one of ``formats``, truncated, too large, too thin, or unreadable.
    """
    try:
        return normalise(_decoded(source, formats, max_pixels, least), fill)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"too large: more than {max_pixels / 1e6:.3g} million pixels", "size") from None
    except UnidentifiedImageError:
        raise ImageError(f"not an image (or none of {', '.join(formats)})", "format") from None
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # hostile data makes decoders raise almost anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"cannot be read: {reason}") from None


def _decoded(source: ImageSource, formats: tuple[str, ...], max_pixels: int, least: int | None) -> Image.Image:
    """Decode an image; what is returned holds its pixels and nothing of the decoder, whose buffers may be larger."""
    header = read_header(source, formats) if isinstance(source, bytes) else None
    if header and all(header.size):
        _check_size(*header.size, max_pixels)
    with _opened(source, formats) as image:
        _check_size(*image.size, max_pixels)
        if header and image.width * image.height > header.size[0] * header.size[1]:
            raise ImageError("its header tells two sizes")
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            tile = (image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
            if math.prod(tile) > max_pixels:  # each is decoded as a whole
                raise ImageError("too large: its tiles have more pixels than an image may have", "size")
        _check_scans(image)
        if least is not None:
            _reduce(image, least)
        image.load()
        return image._new(image.im)  # copy() would hold all pixels twice


def source_name(source: ImageSource, index: int) -> str:
    """How results and messages call an input: a path by itself, anything else by its position."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"image[{index}]"


def _opened(source: ImageSource, formats: tuple[str, ...]) -> Image.Image:
    if isinstance(source, Image.Image):
        _check_size(*source.size)
        with _READING[id(source) % len(_READING)]:
            return source.copy()
    if isinstance(source, bytes):
        return Image.open(io.BytesIO(source), formats=formats)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise ImageError("no such file")
        if not path.is_file():
            raise ImageError("not a file")
        return Image.open(path, formats=formats)
    return _from_array(source)


def _from_array(array: Any) -> Image.Image:
    shape, kind = getattr(array, "shape", None), str(getattr(array, "dtype", type(array).__name__))
    if shape is None or kind != "uint8" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"expected a path, bytes, PIL image or uint8 array (H, W, 3), got {kind} {shape or ''}".rstrip()
        )
    _check_size(shape[1], shape[0])
    return Image.fromarray(array[:, :, 0] if shape[2:] == (1,) else array)


def _reduce(image: Image.Image, least: int) -> None:
    """Have the decoder of a JPEG leave out fine detail: it takes the smallest scale that gives what is asked for."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        short = min(image.size)
        image.draft(None, (-(-image.width * least // short), -(-image.height * least // short)))


def _check_scans(image: Image.Image) -> None:
    """Refuse a JPEG that would decode for minutes or hours."""
    stream = getattr(image, "fp", None)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and stream is not None:
        here = stream.tell()
        stream.seek(0)
        data = stream.read()
        stream.seek(here)
        if data.count(_SCAN) > MAX_SCANS and _scans(data) > MAX_SCANS:  # metadata, or a film behind it, may have _SCAN
            raise ImageError(f"a JPEG of more than {MAX_SCANS} scans; save it anew")


def _scans(data: bytes) -> int:
    """Scans of the first picture in a JPEG, as libjpeg comes across them; counts no further than needed."""
    count, at = 0, 2
    while count <= MAX_SCANS and (mark := _MARK.search(data, at)) and mark[1] != _END:
        count += mark[1] == _SCAN[1:]
        at = mark.end() + int.from_bytes(data[mark.end() : mark.end() + 2])
    return count


def _check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse what would take too much memory or time, here or when it is resized."""
    short, long = sorted((width, height))
    if short == 0:
        raise ImageError(f"empty: {width} x {height} pixels", "size")
    if long > MAX_SIDE or width * height > max_pixels:
        raise ImageError(
            f"too large: {width} x {height} pixels, at most {max_pixels / 1e6:.3g} million and {MAX_SIDE} a side; "
            "scale it down first",
            "size",
        )
    if long > MAX_RATIO * short:
        raise ImageError(f"too thin: {width} x {height} pixels, at most 1:{MAX_RATIO}; crop it first", "size")
