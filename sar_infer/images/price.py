"""The memory that decoding an image may take, estimated from its header before a decoder sees it.

The figures are the peaks of Pillow and ``preprocess.normalise``, as ``benchmarks/memory.py`` measures them. A header
that cannot be read within a number of steps, and TIFF, whose header can be anywhere, get the price of the largest
image.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

MIB = 2**20
_MOST_PARTS = 1000
"""Limit on segments, chunks or blocks that are read, since a request is priced on the event loop."""
_PLAIN, _WEBP = 8, 16
"""Bytes per pixel: RGB twice, or RGBA and RGB; WebP's decoder and Pillow hold four copies of RGBA."""
_FIXED = 8 * MIB
"""Bytes for every image: bands of rows in wide types, the encoder's input, buffers."""
_MARK = re.compile(rb"\xff+([^\x00\xff])")
_FRAMES = frozenset((*range(0xC0, 0xD0), 0xDE)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_WITHOUT_LENGTH = frozenset((0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
_SCAN = 0xDA
_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt", b"iCCP"))
_DEFLATE = 1032
"""How many bytes one compressed byte can become."""


@dataclass(frozen=True)
class Header:
    """The content of an image's header, as far as memory is concerned.

    Attributes:
        size: Width and height in pixels.
        per_pixel: Bytes for each pixel at the peak.
        fixed: Bytes that do not depend on the size.
    """

    size: tuple[int, int]
    per_pixel: int = _PLAIN
    fixed: int = 0


def read_header(data: bytes, formats: tuple[str, ...]) -> Header | None:
    """Read the header of a JPEG, PNG, WebP, GIF or BMP; return None for anything else, damaged or too long.

    It takes a few milliseconds at most, whatever the data.

    Args:
        data: The encoded image.
        formats: The formats, some of ``FORMATS``, that it may have.
    """
    read = _READERS.get(format_of(data) or "")
    try:
        return read(data) if read and format_of(data) in formats else None
    except (IndexError, struct.error):
        return None


def price(data: bytes, formats: tuple[str, ...], max_pixels: int) -> tuple[int, int]:
    """Return the memory that decoding an image takes.

    Args:
        data: The encoded image.
        formats: See ``read_header``.
        max_pixels: Limit for an image; a larger one is refused before it is decoded.

    Returns:
        Bytes for its pixels, 0 if the header does not give its size; and bytes at most, even for hostile content.
    """
    header = read_header(data, formats)
    if format_of(data) not in formats or (header and header.size[0] * header.size[1] > max_pixels):
        return 0, _FIXED  # will be refused
    if header is None:  # 32: objects that a decoder makes of tags and segments
        return 0, max_pixels * _WEBP + 32 * len(data) + 256 * MIB
    pixels = header.size[0] * header.size[1] * header.per_pixel
    return pixels, pixels + header.fixed + 4 * len(data) + _FIXED


def format_of(data: bytes) -> str | None:
    """Return the format, one of ``FORMATS``, that the first bytes of a file are the signature of."""
    return next((form for form, starts in _STARTS.items() if data.startswith(starts)), None)


def _jpeg(data: bytes) -> Header | None:
    """Walk from segment to segment up to the first scan, like Pillow, which is stricter than libjpeg."""
    at, frame = 2, (0, 0, 0, 0)
    for _ in range(_MOST_PARTS):
        mark = _MARK.match(data, at)
        if mark is None:
            return None
        code, at = mark[1][0], mark.end()
        if code in _WITHOUT_LENGTH:
            continue
        if code in _FRAMES:
            frame = (code, *struct.unpack_from(">HHB", data, at + 3))
        elif code == _SCAN:
            kind, height, width, parts = frame
            if kind not in _PROGRESSIVE and data[at + 2] >= parts:
                return Header((width, height))
            padding = (width + 31) * (height + 31) - width * height  # all coefficients are kept, 2 bytes each
            return Header((width, height), max(_PLAIN, 2 * parts + 4), 2 * parts * padding)
        at += struct.unpack_from(">H", data, at)[0]
    return None


def _png(data: bytes) -> Header | None:
    width, height = struct.unpack_from(">II", data, 16)
    at, texts, most = 8, 0, 4 * _MOST_PARTS
    for _ in range(most):
        if at + 8 > len(data):
            return Header((width, height), fixed=min(texts, 320 * MIB))  # Pillow accepts 64 million letters of text
        length, kind = struct.unpack_from(">I4s", data, at)
        if (kind == b"IHDR") != (at == 8):
            return None
        if kind in _TEXTS:  # up to 4 bytes a letter, and the raw bytes
            texts += 5 * max(length, min(MIB, _DEFLATE * length))
        at += length + 12
    return None


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if data[8:12] != b"WEBP":
        return None
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header((width & 0x3FFF, height & 0x3FFF), _WEBP)
    if kind == b"VP8X":
        bits = int.from_bytes(data[24:30], "little")
        size = ((bits & 0xFFFFFF) + 1, (bits >> 24) + 1)
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        size = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    else:
        return None
    return Header(size, _WEBP, _code_tables(size, len(data)))


def _code_tables(size: tuple[int, int], length: int) -> int:
    """Return the bytes of a lossless WebP's prefix codes: at most one group of five per block of 4 x 4 pixels.

    A group takes at least 36 bits of the file, and 6 kB when decoded; longer ones grow at most 34 times.
    """
    blocks = -(-size[0] // 4) * -(-size[1] // 4)
    return min(2**16, blocks, 8 * length // 36 + 1000) * 6000 + 34 * length


def _gif(data: bytes) -> Header | None:
    """Return the size of the screen, widened to the first frame as Pillow does."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (6 << (flags & 7) if flags & 0x80 else 0)
    inside = False  # an extension, which is a list of blocks
    for _ in range(_MOST_PARTS):
        if inside:
            inside, at = data[at] > 0, at + data[at] + 1
        elif data[at] == 0x2C:
            left, top, wide, high = struct.unpack_from("<4H", data, at + 1)
            return Header((max(width, left + wide), max(height, top + high)), _PLAIN + 1)
        elif data[at] == 0x21:
            inside, at = True, at + 2
        else:
            return None
    return None


def _bmp(data: bytes) -> Header | None:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header((abs(width), abs(height)))


_STARTS: dict[str, bytes | tuple[bytes, ...]] = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "WEBP": b"RIFF",
    "GIF": b"GIF8",
    "BMP": b"BM",
    "TIFF": (b"II", b"MM"),
}
_READERS: dict[str, Callable[[bytes], Header | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
}
