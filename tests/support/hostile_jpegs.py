"""JPEGs that are not what their markers seem to say, put together at random, and libjpeg's word on their scans."""

from __future__ import annotations

import random
import re
import struct
import subprocess
from functools import cache
from typing import Any

from PIL import Image
from support.pictures import encoded

SOI, EOI, SOS = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
_PART = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_LIKELY = (0x01, 0x02, 0xBF, 0xC0, 0xC2, 0xC4, 0xCC, 0xD0, 0xD7, 0xDA, 0xDB, 0xDC, 0xDD, 0xE0, 0xE1, 0xEE, 0xF8, 0xFE)


def segment(code: int, content: bytes, length: int | None = None) -> bytes:
    """Return a marker with what follows it, and the length that fits unless another is given."""
    length = len(content) + 2 if length is None else length
    return struct.pack(">BBH", 0xFF, code, min(length, 65535)) + content


def hidden_scans(side: int, scans: int) -> bytes:
    """Return a JPEG of so many pixels a side whose scans stand behind invalid markers that seem to have a length.

    A restart interval has libjpeg look for a restart, so it passes over FF 02 alone and finds the scans behind it.
    """
    data = encoded(Image.new("L", (16, 16)), "JPEG", progressive=True)
    size = data.index(b"\xff\xc2") + 5
    data = data[:size] + struct.pack(">HH", side, side) + data[size + 4 :]
    first, last = data.index(SOS), data.rindex(SOS)
    header = data[last : last + 2 + int.from_bytes(data[last + 2 : last + 4])]
    block = header + segment(0x02, header * 100)
    return data[:first] + segment(0xDD, b"\0\1") + data[first:-2] + block * (scans // 101 + 1) + EOI


def mutated(chance: random.Random) -> bytes:
    """Return a small JPEG whose markers, lengths and scans have been changed, so that a scan may be found or missed."""
    parts = list(chance.choice(_sound()))
    if chance.random() < 0.6:
        parts.insert(1, segment(0xDD, struct.pack(">H", chance.choice((1, 2, 3, 65535)))))
    for _ in range(chance.choice((1, 2, 3, 5, 8))):
        which = chance.randrange(1, len(parts))
        cut = chance.randrange(len(parts[which]) + 1)
        new = _novelty(chance.choice([part for part in parts if part.startswith(SOS)] or [SOS]), chance)
        parts[which : which + 1] = chance.choice(
            (
                [parts[which][:cut], new, parts[which][cut:]],
                [parts[which][:cut]],
                [parts[which]] * 2,
                [new, parts[which]],
                [new, parts[which]],
            )
        )
    return b"".join(parts)


def traced_scans(data: bytes) -> int:
    """Return how many scans libjpeg starts, as djpeg reports them."""
    call = ("djpeg", "-verbose", "-maxmemory", "100M", "-scale", "1/8", "-outfile", "/dev/null")
    told = subprocess.run(call, input=data, capture_output=True, timeout=60).stderr
    return told.count(b"Start Of Scan")


@cache
def _sound() -> tuple[tuple[bytes, ...], ...]:
    """JPEGs of several kinds, each cut into its segments; what follows the header of a scan is a part of its own."""
    noise = Image.effect_noise((40, 24), 60)
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("L", {}),
        ("L", {"progressive": True}),
        ("RGB", {"progressive": True}),
        ("RGB", {"restart_marker_blocks": 1}),
        ("L", {"progressive": True, "restart_marker_blocks": 2}),
        ("CMYK", {"progressive": True, "comment": b"\xff\xd9\xff\xda"}),
    )
    return tuple(tuple(_cut(encoded(noise.convert(mode), "JPEG", **settings))) for mode, settings in kinds)


def _cut(data: bytes) -> list[bytes]:
    parts, at = [SOI], 2
    while at < len(data):
        found = _PART.search(data, at)
        assert found
        if found.start() > at:
            parts.append(data[at : found.start()])
        start, at = found.start(), found.end()
        if data[start:at] != EOI:
            at += int.from_bytes(data[at : at + 2])
        parts.append(data[start:at])
    return parts


def _novelty(header: bytes, chance: random.Random) -> bytes:
    """Return what may lead a reader of markers astray, beside the header of a scan."""
    code = chance.choice((*_LIKELY, chance.randrange(1, 255)))
    body = chance.choice((header, header, EOI, SOI, chance.randbytes(9))) * chance.choice((1, 1, 2, 5))
    wrong = chance.choice((0, 1, 2, 3, 4, len(body), len(body) + 1, chance.randrange(65536)))
    kinds = (segment(code, body), segment(code, body, wrong), bytes([0xFF, code]) + header, bytes([code]), body)
    return chance.choice((b"", b"\xff" * 2, b"\xff\0")) + chance.choice(kinds)
