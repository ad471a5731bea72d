"""Image formats that can be read, and the suffixes by which folders, archives and buckets are searched for images.

A new format also needs its signature here and its Pillow plugin in `load`. The server takes those of ``SAFE_FORMATS``
(``server/settings.py``) unless it sets more.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "HEIF": (".heic", ".heif", ".hif"),
    "AVIF": (".avif",),
}
FORMATS = tuple(_SUFFIXES)
"""Pillow's names of the formats; MPO counts as JPEG, and HEIF needs the extra ``heif``."""
SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)

UNREAD = frozenset((
    ".jp2", ".jxl",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2",
))  # fmt: skip
"""Suffixes of images that are not read; a search of a folder reports them."""
IMAGE_SECONDS = 20
"""Seconds to decode one image, by default, after which a process of a server or a bulk run is ended."""
_SIGNATURES: dict[str, bytes | tuple[bytes, ...]] = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "WEBP": b"RIFF",
    "GIF": b"GIF8",
    "BMP": b"BM",
    "TIFF": (b"II", b"MM"),
}


_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "CR3"}
"""Formats of ISO media files by their major brand; others that files of images have are HEIF."""
HEAD = 64
"""Bytes that ``format_of`` needs."""


def format_of(data: bytes) -> str | None:
    """Return the format that the first bytes of a file are the signature of: one of ``FORMATS``, or CR3."""
    if data[4:8] == b"ftyp" and data[8:11] in (b"avi", b"crx", b"hei", b"hev", b"mif", b"msf"):
        return "AVIF" if b"avif" in data[8:HEAD] else _BRANDS.get(data[8:12], "HEIF")
    return next((form for form, starts in _SIGNATURES.items() if data.startswith(starts)), None)


def suffix_of(path: str) -> str:
    """Return the suffix of a name in lower case, with its dot."""
    return posixpath.splitext(path)[1].lower()


def has_image_suffix(path: str) -> bool:
    """Return whether a name in a folder, archive or bucket ends like an image; a file given by name may have any."""
    return suffix_of(path) in SUFFIXES


def left_out(counts: Mapping[str, int], first: str) -> str:
    """Return a line on files of a folder that are not read.

    Args:
        counts: How many there are, by suffix.
        first: The first of them.
    """
    total, files = sum(counts.values()), "file" if sum(counts.values()) == 1 else "files"
    suffixes = ", ".join(sorted(counts))
    return f"left out {total:,} {files} whose format is not read ({suffixes}), such as {first}; convert to JPEG"
