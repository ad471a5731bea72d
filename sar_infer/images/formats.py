"""Image formats that can be read, and the suffixes by which folders, archives and buckets are searched for images.

A new format also needs its Pillow plugin in `load` and its signature in `price`, with a reader unless its header may be
anywhere. The server takes those of ``SAFE_FORMATS`` (``server/settings.py``) unless it is told more.
"""

from __future__ import annotations

import posixpath

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
FORMATS = tuple(_SUFFIXES)
"""Pillow's names of the formats; MPO counts as JPEG."""
SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)


def has_image_suffix(path: str) -> bool:
    """Return whether a name in a folder, archive or bucket ends like an image; a file given by name may have any."""
    return posixpath.splitext(path)[1].lower() in SUFFIXES
