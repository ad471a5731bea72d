"""The markers of a JPEG, read as libjpeg reads them, so that its decoding cost is known beforehand.

libjpeg (``next_marker``, ``read_markers`` and ``jpeg_resync_to_restart`` in its jdmarker.c) stops at every FF that is
not followed by 00, in coded data as elsewhere. If the marker has a length, it continues after that segment or gives up.
The other markers have no length: start of image, restarts, TEM, and the codes below C0, which libjpeg skips while it
looks for a restart and gives up at elsewhere. Here the bytes after those are always read, so no scan is missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sar_infer.errors import ImageError

MAX_SCANS = 64
"""Each scan costs a pass over the whole image, however few bytes it has. Progressive JPEGs have 10 to 18."""
MAX_SCANNED_PIXELS = 1_000_000_000
"""Scans times pixels: 20 scans at 50 million pixels. Even without data to decode they take a second or two."""
MAX_STEPS = 65_536
"""Segments, and stray bytes before the first scan. Pillow takes a microsecond or two for each."""
START = b"\xff\xd8\xff"
_FILL = b"\xff" * 32_768
"""Fill bytes; Pillow passes 64 KiB at a time to libjpeg, which starts such a run again each time."""
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
"""The end of an image, and markers that are followed by a length."""
_ARITHMETIC_FRAME = re.compile(rb"\xff[\xc9-\xcb]\0[\x0b\x0e\x11\x14]\x08")
"""Start of a frame: marker, length of one to four components, 8 bits."""
_SCAN, _END = 0xDA, 0xD9
_UNSUPPORTED = frozenset((*range(0xC5, 0xCC), *range(0xCD, 0xD0), 0xDE, 0xDF, *range(0xF0, 0xFE)))
"""libjpeg gives up at these, or they mean arithmetic coding, in which a scan takes seconds without any data."""


def check_header(data: bytes) -> None:
    """Raise ImageError if the bytes are a JPEG that Pillow cannot decode or takes long to open."""
    if data.startswith(START):
        for code in _markers(data):
            if code == _SCAN:
                break


def check_scans(data: bytes, width: int, height: int) -> None:
    """Raise ImageError if a JPEG of this size has more scans than can be decoded in a few seconds."""
    scans, most = count_scans(data), min(MAX_SCANS, MAX_SCANNED_PIXELS // (width * height))
    if scans > most:
        raise ImageError(
            f"too many scans: {scans} in a JPEG of {width} x {height} pixels, at most {most} at that size; "
            "save it as a baseline JPEG"
        )


def check_tiff(data: bytes) -> None:
    """Raise ImageError if a TIFF may hold a JPEG with arithmetic coding; libtiff itself stops at 100 scans."""
    if _ARITHMETIC_FRAME.search(data):
        raise ImageError("a TIFF that contains a JPEG with arithmetic coding, which is not supported; save it again")


def count_scans(data: bytes) -> int:
    """Return an upper bound on the scans that libjpeg starts in the first image of a JPEG.

    Raises:
        ImageError: It is an unsupported kind of JPEG, or has more than ``MAX_STEPS`` segments or stray bytes.
    """
    return sum(code == _SCAN for code in _markers(data))


def _markers(data: bytes) -> Iterator[int]:
    """Yield the codes of the markers of a JPEG that ``_MARKER`` matches, up to the end of its first image.

    An end of image before the first scan is skipped: it ends a file of tables, and Pillow reads on after it.
    """
    at, scanned, left = 2, False, MAX_STEPS
    while at < len(data):
        marker = _MARKER.search(data, at)
        until = marker.start() if marker else len(data)
        if not scanned:
            left -= until - at
        if left <= 0 or data.find(_FILL, at, until) >= 0:
            raise ImageError(f"a JPEG of more than {MAX_STEPS:,} segments or stray bytes; save it again")
        if not marker or (scanned and marker[1][0] == _END):
            return
        code, at, left = marker[1][0], marker.end(), left - 1
        if code in _UNSUPPORTED and not scanned:
            raise ImageError(
                f"a JPEG of a kind that is not supported (marker FF {code:02X}: arithmetic coding, hierarchical or "
                "reserved); save it as a baseline JPEG"
            )
        yield code
        scanned = scanned or code == _SCAN
        if code != _END:
            at += int.from_bytes(data[at : at + 2])
