"""What the command line's IMAGE arguments stand for."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from sar_infer.errors import InputError

STDIN = "-"
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mpo"})


def expand(arguments: Iterable[str]) -> list[str]:
    """Image paths for files, folders (searched through), glob patterns and ``-``, in the order given.

    A file is taken whatever it is called; of a folder, the files with an image suffix, sorted, hidden ones left out.

    Raises:
        InputError: nothing is there, or a folder holds no image.
    """
    return [path for argument in arguments for path in _expand(argument)]


def _expand(argument: str) -> Iterator[str]:
    path = Path(argument)
    if argument == STDIN or path.is_file():
        yield argument
    elif path.is_dir():
        yield from _images_below(path)
    elif path.exists():
        raise InputError(f"{argument}: neither a file nor a folder")
    elif glob.has_magic(argument):
        found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not found:
            raise InputError(f"{argument}: matches nothing")
        yield from expand(found)
    else:
        raise InputError(f"{argument}: no such file or folder")


def _images_below(folder: Path) -> list[str]:
    found = sorted(str(path) for path in folder.rglob("*") if _is_visible_image(path.relative_to(folder)))
    if not found:
        raise InputError(f"{folder}: a folder without images (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def _is_visible_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)
