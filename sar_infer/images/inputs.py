"""What the command line's IMAGE arguments stand for."""

from __future__ import annotations

import glob
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from sar_infer.errors import InputError
from sar_infer.images.formats import SUFFIXES, has_image_suffix

STDIN = "-"


def expand(arguments: Iterable[str]) -> list[str]:
    """Image paths for files, folders (searched through), glob patterns and ``-``, in the order given.

    A file is taken whatever it is called; of a folder, the files with an image suffix, sorted, hidden ones left out.

    Raises:
        InputError: nothing is there, or a folder holds no image.
    """
    return [path for argument in arguments for path in _expand(argument)]


def kind_of(argument: str) -> Literal["file", "folder"] | None:
    """What is there under a name; None = nothing.

    Raises:
        InputError: something else, a pipe perhaps.
    """
    try:
        mode = Path(argument).stat().st_mode
    except (OSError, ValueError):  # not there, or no name that a file can have
        return None
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    raise InputError(f"{argument}: neither a file nor a folder")


def matches(argument: str) -> list[str]:
    """What a glob pattern matches, sorted.

    Raises:
        InputError: it is no pattern, or matches nothing.
    """
    if not glob.has_magic(argument):
        raise InputError(f"{argument}: no such file or folder")
    found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise InputError(f"{argument}: matches nothing")
    return found


def _expand(argument: str) -> Iterator[str]:
    kind = "file" if argument == STDIN else kind_of(argument)
    if kind == "file":
        yield argument
    elif kind == "folder":
        yield from _images_below(Path(argument))
    else:
        yield from expand(matches(argument))


def _images_below(folder: Path) -> list[str]:
    below = (path for path in folder.rglob("*") if _is_visible_image(path.relative_to(folder)))
    found = sorted(str(path) for path in below if not path.is_dir())
    if not found:
        raise InputError(f"{folder}: a folder without images (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def _is_visible_image(path: Path) -> bool:
    return has_image_suffix(path.name) and not any(part.startswith(".") for part in path.parts)
