"""The images that take the most memory to decode, one of each kind of every format, in few bytes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image
from support.pictures import chunk

Size = tuple[int, int]
SIZE = (7070, 7070)
"""Just below the 50 million pixels that a server takes."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _saved(image: Image.Image, form: str, **settings: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **settings)
    return stream.getvalue()


def _exif(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _jpeg(mode: str, progressive: bool, exif: bytes = b"") -> Callable[[Size], bytes]:
    settings = {} if mode == "L" else {"subsampling": 0}
    return lambda size: _saved(
        Image.new(mode, size), "JPEG", quality=50, progressive=progressive, exif=exif, **settings
    )


def _zeros(rows: Iterator[int]) -> bytes:
    """Compress rows of so many zero bytes."""
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(bytes(row)) for row in rows) + packer.flush()


def png(depth: int, colour: int, channels: int, interlaced: bool = False, *before: bytes) -> Callable[[Size], bytes]:
    """Make a PNG of zeros with a colour type, and chunks before its data."""

    def made(size: Size) -> bytes:
        def rows(width: int, height: int) -> Iterator[int]:
            return (1 + (width * depth * channels + 7) // 8 for _ in range(height if width else 0))

        parts = [rows(*size)]
        if interlaced:
            parts = [rows(-(-(size[0] - x) // dx), -(-(size[1] - y) // dy)) for x, y, dx, dy in _ADAM7]
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced))
        data = chunk(b"IDAT", _zeros(row for part in parts for row in part))
        return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + data + chunk(b"IEND", b"")

    return made


def _webp(colour: tuple[int, ...], **settings: object) -> Callable[[Size], bytes]:
    mode = "RGB" if len(colour) == 3 else "RGBA"
    return lambda size: _saved(Image.new(mode, size, colour), "WEBP", method=0, **settings)


def _animated_webp(size: Size) -> bytes:
    """A canvas of that size whose first frame fills it."""
    still = _saved(Image.new("RGBA", size, (9, 99, 50, 100)), "WEBP", lossless=True, method=0)[12:]
    still = still[still.index(b"VP8L") :]
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in size)
    frame = bytes(6) + sides + struct.pack("<I", 100)[:3] + b"\0" + still
    parts = ((b"VP8X", b"\x12\0\0\0" + sides), (b"ANIM", bytes(6)), (b"ANMF", frame), (b"ANMF", frame))
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for kind, part in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def many_codes(size: Size) -> bytes:
    """A lossless WebP of one colour with prefix codes for each block of 4 x 4 pixels: 36 bits become 6 kB."""
    blocks = np.arange(-(-size[0] // 4) * -(-size[1] // 4)) % 2**16
    lengths = [int(i in (2, 11)) for i in range(12)]  # of the codes for the lengths 0 and 8, one bit each
    one_symbol = _bits((1, 4))

    def eight_bits(alphabet: int) -> npt.NDArray[np.uint8]:
        return np.concatenate([_bits((0, 1), (8, 4), *((n, 3) for n in lengths), (0, 1)), np.arange(alphabet) < 256])

    start = _bits((0x2F, 8), (size[0] - 1, 14), (size[1] - 1, 14), (0, 4), (0b1_0_0, 3), (0, 3), (0, 1))
    index = np.unpackbits(np.stack([blocks & 255, blocks >> 8], axis=1).astype(np.uint8))
    codes = [eight_bits(280), eight_bits(256), *[one_symbol] * 3]
    parts = [start, *codes, index, np.tile(one_symbol, 5 * (int(blocks.max()) + 1))]
    data = np.packbits(np.concatenate(parts).astype(np.uint8), bitorder="little").tobytes() + bytes(8)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bits(*fields: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Numbers in so many bits each, the lowest first."""
    return np.array([value >> i & 1 for value, count in fields for i in range(count)], dtype=np.uint8)


def _bmp(size: Size) -> bytes:
    """A palette and runs of one colour."""
    runs, rest = divmod(size[0], 255)
    row = b"\xff\1" * runs + bytes((rest, 1)) * bool(rest) + b"\0\0"
    palette, data = bytes(1024), row * size[1] + b"\0\1"
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def _tiff(mode: str, **settings: object) -> Callable[[Size], bytes]:
    return lambda size: _saved(Image.new(mode, size), "TIFF", compression="tiff_deflate", **settings)


_TEXT = zlib.compress("\U0001f600".encode() + bytes(2**20 - 100), 9)
_TEXTS = tuple(chunk(b"iTXt", b"%d\0\1\0\0\0" % i + _TEXT) for i in range(60))
"""A thousand bytes each, which become 4 MiB of text."""

GIANTS: dict[str, Callable[[Size], bytes]] = {
    "JPEG baseline": _jpeg("RGB", False),
    "JPEG baseline, turned": _jpeg("RGB", False, _exif()),
    "JPEG progressive": _jpeg("RGB", True),
    "JPEG progressive grey": _jpeg("L", True),
    "JPEG baseline CMYK": _jpeg("CMYK", False),
    "JPEG progressive CMYK, turned": _jpeg("CMYK", True, _exif()),
    "PNG RGB": png(8, 2, 3),
    "PNG RGBA, turned": png(8, 6, 4, False, chunk(b"eXIf", _exif()[6:])),
    "PNG RGBA interlaced": png(8, 6, 4, True),
    "PNG 1 bit": png(1, 0, 1),
    "PNG 16 bit grey": png(16, 0, 1),
    "PNG 16 bit RGB": png(16, 2, 3),
    "PNG 16 bit RGBA": png(16, 6, 4),
    "PNG palette and alpha": png(8, 3, 1, False, chunk(b"PLTE", bytes(768)), chunk(b"tRNS", bytes(range(256)))),
    "PNG with texts": png(8, 6, 4, False, *_TEXTS),
    "WebP lossy": _webp((9, 99, 50)),
    "WebP lossy and alpha": _webp((9, 99, 50, 100)),
    "WebP lossless": _webp((9, 99, 50), lossless=True),
    "WebP lossless and alpha": _webp((9, 99, 50, 100), lossless=True),
    "WebP animated": _animated_webp,
    "WebP with many codes": many_codes,
    "GIF": lambda size: _saved(Image.new("P", size), "GIF", transparency=0, disposal=2),
    "BMP RLE": _bmp,
    "TIFF RGBA": _tiff("RGBA"),
    "TIFF float": _tiff("F"),
    "TIFF CMYK": _tiff("CMYK"),
}
"""By name: makes one of a size."""
