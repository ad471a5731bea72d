"""Pictures that nobody means well with: bombs, lies, mixtures, and mutations of sound ones."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from functools import cache

from PIL import Image
from support.hostile_jpegs import hidden_scans
from support.pictures import chunk, encoded, huge_png, jpeg

OK, TOO_LARGE, OTHER_FORMAT, BROKEN = 200, 413, 415, 422
_PNG = b"\x89PNG\r\n\x1a\n"
_SCAN = b"\xff\xda"


def png(width: int = 8, height: int = 8, before: bytes = b"", depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that says it has such a size, with the data of 8 × 8 grey pixels, and chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return _PNG + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(bytes(9 * 8))) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """So many zero bytes, whole MiB of them, compressed: each of the later ones is the same few bytes."""
    packer = zlib.compressobj(9)
    first, later = (packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    end = b"\x03\0" + struct.pack(">HH", count % 65521, 1)  # an empty block, and the check sum of zeros
    return first + later * (count // 2**20 - 1) + end


def segments(first: bytes, *more: bytes) -> bytes:
    """A JPEG with further segments behind its beginning, each a marker and its content."""
    made = b"".join(b"\xff" + part[:1] + struct.pack(">H", len(part) + 1) + part[1:] for part in more)
    return first[:2] + made + first[2:]


def of_size(picture: bytes, width: int, height: int) -> bytes:
    """A baseline or progressive JPEG that says it has such a size."""
    at = max(picture.find(b"\xff\xc0"), picture.find(b"\xff\xc2"))
    return picture[: at + 5] + struct.pack(">HH", height, width) + picture[at + 9 :]


def scans(count: int, size: tuple[int, int] = (2000, 2000)) -> bytes:
    """A progressive JPEG whose last scan, a few bytes long, stands so many times more."""
    data = encoded(Image.new("L", size), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(_SCAN) : -2] * count + data[-2:]


def exif(orientation: bytes, entries: int = 1, following: int = 0) -> bytes:
    """EXIF data: one entry as it stands, said to be so many, and where the next directory is said to be."""
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", entries) + orientation + struct.pack(">I", following)


def animated(form: str, sizes: int = 3) -> bytes:
    """Several frames."""
    frames = [Image.new("RGB", (40, 40), (60 * i, 0, 0)) for i in range(sizes)]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


def later_frame(width: int, height: int) -> bytes:
    """An animated PNG whose second frame is said to be of such a size."""
    control = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 1, 0, 0)
    return png(before=chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", control))


def webp(width: int, height: int) -> bytes:
    """An animated WebP that says its canvas is so large, with one small frame."""
    still = encoded(Image.new("RGB", (16, 16)), "WEBP")[12:]

    def triple(value: int) -> bytes:
        return struct.pack("<I", value)[:3]

    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + triple(width - 1) + triple(height - 1)
    frame = triple(0) * 2 + triple(15) * 2 + triple(10) + b"\0" + still
    body = b"WEBP" + canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def zipped() -> bytes:
    """A ZIP archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("index.html", "<script>alert(1)</script>" * 100)
    return stream.getvalue()


def _orientations() -> dict[str, tuple[bytes, int]]:
    short = struct.pack(">HHI", 0x0112, 3, 1)
    lies = {
        "orientation 0": exif(short + b"\0\0\0\0"),
        "orientation 9": exif(short + b"\0\x09\0\0"),
        "orientation 65535": exif(short + b"\xff\xff\0\0"),
        "orientation is text": exif(struct.pack(">HHI", 0x0112, 2, 4) + b"abc\0"),
        "a thousand million orientations": exif(struct.pack(">HHI", 0x0112, 3, 10**9) + b"\0\0\0\x08"),
        "circular directory": exif(short + b"\0\x06\0\0", following=8),
        "directory of 65535 entries": exif(short + b"\0\x06\0\0", entries=65535),
        "directory nowhere": b"Exif\0\0MM\0*\xff\xff\xff\xff",
        "maker note of noise": exif(struct.pack(">HHI", 0x927C, 7, 4000) + b"\0\0\0\x20")
        + random.Random(0).randbytes(900),
        "empty": b"Exif\0\0",
    }
    return {f"exif {name}": (segments(jpeg(), b"\xe1" + data), OK) for name, data in lies.items()}


@cache
def corpus() -> dict[str, tuple[bytes, int]]:
    """Pictures by name, each with the status that a raw call of ``/v1/classify`` answers with at the default limits."""
    photo, small = jpeg((64, 48)), Image.new("RGB", (20, 20), (9, 99, 9))
    palette = Image.new("P", (20, 20))
    palette.putpalette([1, 2, 3] * 256)
    foreign = {
        form: (encoded(small, form), OTHER_FORMAT)
        for form in ("GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "DDS", "JPEG2000", "AVIF")
    }
    modes = {
        f"png {mode}": (encoded(Image.new(mode, (20, 20)), "PNG"), OK) for mode in ("1", "L", "LA", "P", "I;16", "RGBA")
    }
    return {
        **foreign,
        **modes,
        **_orientations(),
        "fits": (b"SIMPLE  =                    T" + b" " * 2850, OTHER_FORMAT),
        "psd": (b"8BPS\0\1" + bytes(200), OTHER_FORMAT),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", OTHER_FORMAT),
        "html": (b"<!doctype html><script>alert(1)</script>", OTHER_FORMAT),
        "zip": (zipped(), OTHER_FORMAT),
        "one byte": (b"\xff", OTHER_FORMAT),
        "signature of a JPEG": (b"\xff\xd8\xff", OTHER_FORMAT),
        "signature of a PNG": (_PNG, OTHER_FORMAT),
        "webp in name": (b"RIFF\xff\xff\xff\xffWEBPVP8 ", BROKEN),
        "png bomb": (huge_png(30_000, 30_000), TOO_LARGE),
        "png wide": (huge_png(16_385, 200), TOO_LARGE),
        "png long": (huge_png(1, 5000), TOO_LARGE),
        "png 2**31": (png(2**31 - 1, 2**31 - 1), TOO_LARGE),
        "png without width": (png(0, 8), OTHER_FORMAT),
        "png larger than its data": (png(4000, 4000), BROKEN),
        "png 1 x 1": (encoded(Image.new("RGB", (1, 1)), "PNG"), OK),
        "png 1 x 100": (encoded(Image.new("RGB", (1, 100)), "PNG"), OK),
        "png palette with transparency": (encoded(palette, "PNG", transparency=0), OK),
        "png odd depth": (png(depth=3), OTHER_FORMAT),
        "png text bomb": (png(before=chunk(b"zTXt", b"a\0\0" + zeros(2**28))), BROKEN),
        "png text bomb, international": (png(before=chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(2**28))), BROKEN),
        "png profile bomb": (png(before=chunk(b"iCCP", b"a\0\0" + zeros(2**28))), BROKEN),
        "png many text bombs": (png(before=chunk(b"zTXt", b"a\0\0" + zeros(2**20)) * 100), BROKEN),
        "png many chunks": (png(before=chunk(b"juNk", b"") * 50_000), OK),
        "png with html": (png(before=chunk(b"tEXt", b"Comment\0<script>alert(1)</script>")), OK),
        "png later frame huge": (later_frame(2**31 - 1, 2**31 - 1), OTHER_FORMAT),
        "png animated": (animated("PNG"), OK),
        "webp animated": (animated("WEBP"), OK),
        "webp canvas": (webp(16_384, 16_384), TOO_LARGE),
        "webp canvas, 40 MP": (webp(8000, 5000), OK),
        "webp lossless": (encoded(Image.new("RGBA", (20, 20)), "WEBP"), OK),
        "jpeg huge": (of_size(photo, 65_500, 65_500), TOO_LARGE),
        "jpeg larger than its data": (of_size(photo, 6000, 6000), OK),
        "jpeg of no height": (of_size(photo, 100, 0), OTHER_FORMAT),
        "jpeg scans": (scans(2000), BROKEN),
        "jpeg scans, allowed": (scans(40), OK),
        "jpeg hidden scans": (hidden_scans(2000, 500), BROKEN),
        "jpeg arithmetic": (photo.replace(b"\xff\xc0", b"\xff\xc9"), BROKEN),
        "jpeg then film": (photo + _SCAN * 5000, OK),
        "jpeg then zip": (photo + zipped(), OK),
        "jpeg in pdf": (b"%PDF-1.4\n" + photo, OTHER_FORMAT),
        "jpeg with marks in its notes": (segments(photo, b"\xef" + _SCAN * 30_000), OK),
        "jpeg many segments": (photo[:2] + b"\xff\xfe\0\2" * 50_000 + photo[2:], OK),
        "jpeg too many segments": (photo[:2] + b"\xff\xfe\0\2" * 200_000 + photo[2:], BROKEN),
        "jpeg cmyk": (encoded(Image.new("CMYK", (20, 20)), "JPEG"), OK),
        "jpeg grey": (encoded(Image.new("L", (20, 20)), "JPEG"), OK),
        "jpeg odd adobe mark": (segments(photo, b"\xeeAdobe\0\x64\0\0\0\0\xff"), OK),
        "jpeg profile of no sense": (segments(photo, b"\xe2ICC_PROFILE\0\xff\xff" + bytes(50)), OK),
        "mpo": (animated("MPO"), OK),
        "mpo, broken second frame": (animated("MPO")[:-300], OK),
    }  # fmt: skip


def mutated(picture: bytes, chance: random.Random) -> bytes:
    """A sound picture with some damage done to it."""
    data = bytearray(picture)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at, length = chance.randrange(len(data) + 1), chance.choice((1, 2, 4, 16, 256))
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at : at + length] = b""
            case 2:
                data[at:at] = chance.choice((chance.randbytes(length), b"\xff" * length, bytes(length)))
            case 3:
                data[at : at + 4] = struct.pack(">I", chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65_535, 256)))
            case 4:
                data[at:at] = data[at : at + length * 8]
            case _:
                data[at:] = b"" if chance.random() < 0.3 else data[at:]
    return bytes(data)


@cache
def sound() -> tuple[bytes, ...]:
    """Pictures of every accepted kind to damage."""
    noise = Image.effect_noise((60, 44), 90).convert("RGB")
    turned = exif(struct.pack(">HHI", 0x0112, 3, 1) + b"\0\x06\0\0")
    progressive = encoded(noise, "JPEG", progressive=True, exif=turned)
    forms = [encoded(noise, form) for form in ("JPEG", "PNG", "WEBP")]
    kinds = [encoded(noise.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")]
    return (*forms, *kinds, progressive, animated("PNG"), animated("WEBP"), animated("MPO"))


@cache
def phone_photo(form: str) -> bytes:
    """A sound HEIF or AVIF to damage; the first needs its plugin."""
    return encoded(Image.effect_noise((60, 44), 90).convert("RGB"), form)
