"""Project files of Teachable Machine (``.tm``): a zip with one folder of photos for each class.

A photo in a project has a path below that of the file, ``PROJECT.tm/CLASS/0.jpg``. Nothing is unpacked to disk.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from sar_infer.errors import ImageError, InputError, reason_of
from sar_infer.images.formats import has_image_suffix, suffix_of

PROJECT = ".tm"
_MOST_BYTES = 100 * 2**20
"""The largest photo in bytes."""
_MOST_RATIO = 200
"""Bytes of a photo for each compressed byte, at most; a larger ratio is a bomb."""
_MOST_INDEX = 16 * 2**20
"""The largest index of a zip in bytes."""
_END, _ZIP64_END = b"PK\5\6", b"PK\6\7"
_INSIDE = re.compile(r"(.+?\.tm)[/\\](.+)", re.IGNORECASE | re.DOTALL)
_DAMAGE = (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError)


def is_project(path: str) -> bool:
    """Return whether a path is a project file, by its suffix."""
    return suffix_of(path) == PROJECT and Path(path).is_file()


def project_photos(path: str) -> dict[str, list[str]]:
    """Return the paths of the photos of a project by the name of their folder, both sorted.

    Raises:
        InputError: The file is damaged or hostile, or has no folder with photos.
    """
    try:
        names = [PurePosixPath(name) for name in sorted(_project(path).NameToInfo) if has_image_suffix(name)]
    except _DAMAGE as error:
        raise InputError(f"{path}: not a Teachable Machine project: {reason_of(error)}") from None
    photos: dict[str, list[str]] = {}
    for name in names:
        if len(name.parts) > 1 and not any(one.startswith((".", "__")) for one in name.parts):
            photos.setdefault(name.parts[-2], []).append(f"{path}/{name}")
    if not photos:
        raise InputError(f"{path}: a project without a folder of photos; download it again as a file, with its samples")
    return photos


def in_project(path: str) -> tuple[str, str] | None:
    """Return the project file of a path below one, and the name of the photo in it; None for any other path."""
    inside = _INSIDE.fullmatch(path)
    return (inside[1], inside[2].replace("\\", "/")) if inside and is_project(inside[1]) else None


def photo_in_project(path: str) -> bytes | None:
    """Return the encoded photo at a path below a project file; None for any other path.

    Raises:
        ImageError: The project has no such photo, or it cannot be read.
    """
    if (inside := in_project(path)) is None:
        return None
    try:
        project, name = inside
        return _project(project).read(name)
    except KeyError:
        raise ImageError("no such photo in the project") from None
    except _DAMAGE as error:
        raise ImageError(f"cannot be read: {reason_of(error)}") from None


def _project(path: str) -> zipfile.ZipFile:
    """Return an open, checked project."""
    status = Path(path).stat()
    return _checked(os.path.realpath(path), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1)
def _checked(path: str, changed: int, size: int) -> zipfile.ZipFile:  # noqa: ARG001 - a changed file is opened again
    """Open a project; ValueError if its index is too large or an entry is not a plain, small file of a plain name."""
    with Path(path).open("rb") as stream:
        stream.seek(max(size - 42, 0))
        end = stream.read()
    if end[-22:-18] != _END or end[-2:] != b"\0\0":
        raise ValueError("expected a zip without a comment, which may be cut short")
    if end.startswith(_ZIP64_END) or int.from_bytes(end[-10:-6], "little") > _MOST_INDEX:
        raise ValueError("its index is too large; split the project")
    archive = zipfile.ZipFile(path)
    try:
        for entry in archive.infolist():
            if problem := _problem(entry):
                raise ValueError(f"{entry.filename!r:.80} {problem}")
        if len(archive.NameToInfo) < len(archive.infolist()):
            raise ValueError("two entries have one name")
    except ValueError:
        archive.close()
        raise
    return archive


def _problem(entry: zipfile.ZipInfo) -> str | None:
    """Return why an entry is rejected, or None."""
    name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
    if not name.isprintable() or "\\" in name or name.startswith("/") or {"..", "."} & {*name.split("/")}:
        return "is no plain name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "has another compression than deflate"
    if entry.file_size > _MOST_BYTES:
        return f"has {entry.file_size:,} bytes, at most {_MOST_BYTES:,}"
    if entry.file_size > _MOST_RATIO * max(entry.compress_size, 1):
        return f"has {entry.file_size:,} bytes in {entry.compress_size:,}, at most {_MOST_RATIO} times as many"
    return None
