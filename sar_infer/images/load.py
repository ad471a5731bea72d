"""Opening images that may be hostile: any form of input becomes an upright RGB image or an ImageError.

The header is read first, and the size is checked before any pixel is decoded. The format is recognised by content,
never by file name, and only those in ``FORMATS`` are tried. Of several frames the first is taken.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import (  # noqa: F401 - a format can be read once its plugin is imported
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from sar_infer.errors import ImageError, install
from sar_infer.images import jpeg
from sar_infer.images.formats import FORMATS, HEAD, UNREAD, format_of
from sar_infer.images.preprocess import normalise
from sar_infer.images.projects import photo_in_project
from sar_infer.images.sources import EXPECTED

ImageSource = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[np.uint8]
"""A path, encoded bytes, an open file, a PIL image, or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""
MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384
MAX_RATIO = 100
TOO_LITTLE_MEMORY = "needs more memory than there is; scale it down first"
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # of a decoder; images are decoded side by side
_READING = tuple(threading.Lock() for _ in range(61))
"""Locks for PIL images, chosen by identity: only one thread may read an image that was opened but not yet read."""


def load_rgb(
    source: ImageSource,
    fill: int = 0,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    least: int | None = None,
) -> Image.Image:
    """Decode one image.

    Args:
        source: The image.
        fill: Grey level 0..255 under transparent parts.
        formats: The formats, some of ``FORMATS``, that files and encoded bytes may have.
        max_pixels: Largest width times height.
        least: Pixels that the short side must keep if a JPEG is decoded at a half, a quarter or an eighth of its size,
            as a check of many photos does; None decodes every pixel.

    Raises:
        ImageError: The source is not an image, not in one of ``formats``, truncated, too large, too thin, a JPEG of
            too many scans (see ``jpeg.check_scans``), unreadable, or there is too little memory for it.
    """
    try:
        source = _read(source)
        return normalise(_decoded(source, formats, max_pixels, least), fill)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"too large: more than {max_pixels / 1e6:.3g} million pixels", "size") from None
    except UnidentifiedImageError:
        raise ImageError(_why_unidentified(source, formats), "format") from None
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(TOO_LITTLE_MEMORY, "size") from None
    except Exception as error:  # hostile data makes decoders raise almost anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"cannot be read: {reason}") from None


def _read(source: Any) -> ImageSource:
    """Return the content of an open file, of a buffer or of a photo in a project as bytes, anything else as it is.

    Raises:
        ImageError: A file was opened as text, or a project does not have the photo.
    """
    if isinstance(source, str | os.PathLike) and (photo := photo_in_project(os.fspath(source))) is not None:
        return photo
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if not hasattr(source, "read"):
        return source  # type: ignore[no-any-return]
    if isinstance(source, io.TextIOBase):
        raise ImageError("a file that was opened as text; open it with open(path, 'rb')")
    return bytes(source.read())


def _decoded(source: ImageSource, formats: tuple[str, ...], max_pixels: int, least: int | None) -> Image.Image:
    """Decode an image, and return its pixels without the decoder, whose buffers may be larger."""
    if isinstance(source, bytes) and "WEBP" in formats and (size := _webp_size(source)):
        _check_size(*size, max_pixels)  # its decoder takes memory for all pixels when it is opened
    with _opened(source, formats) as image:
        _check_size(*image.size, max_pixels)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            tile = (image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
            if math.prod(tile) > max_pixels:  # each is decoded as a whole
                raise ImageError("too large: its tiles have more pixels than an image may have", "size")
        _check_scans(image)
        if least is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
            short = min(image.size)  # decode at the smallest scale that leaves enough pixels
            image.draft(None, (-(-image.width * least // short), -(-image.height * least // short)))
        image.load()
        _check_size(*image.size, max_pixels)  # of a HEIF it is known only now
        return image._new(image.im)  # copy() would hold all pixels twice


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the size of a WebP by its header; None for anything else, or if it ends before."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 25:
        return None
    bits = int.from_bytes(data[20:30], "little")  # the content of the first chunk
    match data[12:16]:
        case b"VP8 ":
            return bits >> 48 & 0x3FFF, bits >> 64 & 0x3FFF
        case b"VP8L":
            return (bits >> 8 & 0x3FFF) + 1, (bits >> 22 & 0x3FFF) + 1
        case b"VP8X":
            return (bits >> 32 & 0xFFFFFF) + 1, (bits >> 56 & 0xFFFFFF) + 1
    return None


def _why_unidentified(source: ImageSource, formats: tuple[str, ...]) -> str:
    """Return why no decoder took a file: it is empty, of another format by its signature or suffix, or no image."""
    head, suffix = source[:HEAD] if isinstance(source, bytes) else None, ""
    if isinstance(source, str | os.PathLike):
        suffix = Path(source).suffix.lower()
        with contextlib.suppress(OSError), Path(source).open("rb") as stream:
            head = stream.read(HEAD)
    if head == b"":
        return "empty file"
    form = format_of(head or b"") or (suffix[1:].upper() if suffix in UNREAD else None)
    if form is None or form in formats:
        return f"not an image (or none of {', '.join(formats)})"
    return f"{form} is not read, only {', '.join(formats)}; convert it to JPEG"


def source_name(source: ImageSource, index: int) -> str:
    """Return the name of an input in results and messages: a path as it is, anything else by its position."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"image[{index}]"


def _opened(source: ImageSource, formats: tuple[str, ...]) -> Image.Image:
    if isinstance(source, Image.Image):
        _check_size(*source.size)
        with _READING[id(source) % len(_READING)]:
            _check_scans(source)
            return source.copy()
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise ImageError("an address; download it first" if "://" in str(source) else "no such file")
        if not path.is_file():
            raise ImageError("not a file")
        with path.open("rb") as stream:
            head = stream.read(HEAD)
            if head.startswith(jpeg.START):
                return _from_bytes(_rest(stream, 0), formats)
        return Image.open(path, formats=_readers(head, formats))
    return _from_bytes(source, formats) if isinstance(source, bytes) else _from_array(source)


@functools.cache
def read_heif() -> None:
    """Let Pillow read HEIF, whose library checks the size of the coded pixels before it takes memory for them.

    Raises:
        ImageError: The extra ``heif`` is not installed.
    """
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"HEIC needs another package: {install('heif')}", "format") from None
    pillow_heif.register_heif_opener(decode_threads=1)


def _readers(head: bytes, formats: tuple[str, ...]) -> tuple[str, ...]:
    """Return the formats that Pillow is asked to try: HEIF, which it does not know by itself, for such images only."""
    if format_of(head) != "HEIF":
        return tuple(name for name in formats if name != "HEIF")
    if "HEIF" in formats:
        read_heif()
    return formats


def _from_bytes(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    jpeg.check_header(data)
    return Image.open(io.BytesIO(data), formats=_readers(data, formats))


def _from_array(array: Any) -> Image.Image:
    shape, kind = getattr(array, "shape", None), str(getattr(array, "dtype", type(array).__name__))
    if shape is None or kind != "uint8" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(f"expected {EXPECTED}, got {kind} {shape or ''}".rstrip())
    _check_size(shape[1], shape[0])
    return Image.fromarray(array[:, :, 0] if shape[2:] == (1,) else array)


def _check_scans(image: Image.Image) -> None:
    """Raise ImageError for a JPEG, or a TIFF with JPEGs in it, that would take more than a few seconds to decode."""
    stream = getattr(image, "fp", None)
    if stream is None or not getattr(image, "tile", None):
        return
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        jpeg.check_scans(_rest(stream, image.tile[0].offset), image.width, image.height)
    elif isinstance(image, TiffImagePlugin.TiffImageFile) and "jpeg" in image.info.get("compression", ""):
        jpeg.check_tiff(_rest(stream, 0))


def _rest(stream: IO[bytes], offset: int) -> bytes:
    """Return the rest of a stream from an offset, and leave its position unchanged."""
    here = stream.tell()
    stream.seek(offset)
    data = stream.read()
    stream.seek(here)
    return data


def _check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ImageError for a size that would take too much memory or time, here or when resized."""
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
