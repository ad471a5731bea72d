"""The IMAGE arguments of the command line: files, folders, glob patterns and standard input."""

from __future__ import annotations

import glob
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from sar_infer.errors import InputError
from sar_infer.images.formats import SUFFIXES, has_image_suffix

STDIN = "-"


def expand(arguments: Iterable[str]) -> list[str]:
    """Return image paths for files, folders, glob patterns and ``-``, in the order given.

    A file that is named itself is taken whatever its suffix. A folder is searched with all its subfolders for visible
    files with an image suffix, which are sorted.

    Raises:
        InputError: Nothing is there, or a folder holds no image.
    """
    return [path for argument in arguments for path in _expand(argument)]


def expand_present(arguments: Sequence[str]) -> list[str]:
    """Return image paths as `expand` does, but keep a missing file among others, which fails when it is read.

    Raises:
        InputError: All of them are missing, a folder holds no image, or a pattern matches nothing.
    """
    missing = [argument != STDIN and not glob.has_magic(argument) and not kind_of(argument) for argument in arguments]
    if all(missing):
        return expand(arguments)
    return [
        path
        for argument, gone in zip(arguments, missing, strict=True)
        for path in ([argument] if gone else _expand(argument))
    ]


def kind_of(argument: str) -> Literal["file", "folder"] | None:
    """Return what a path is, or None if nothing is there.

    Raises:
        InputError: It is something else, such as a pipe.
    """
    try:
        mode = Path(argument).stat().st_mode
    except (OSError, ValueError):  # absent, or not a valid path
        return None
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    raise InputError(f"{argument}: neither a file nor a folder")


def matches(argument: str) -> list[str]:
    """Return the paths that a glob pattern matches, sorted.

    Raises:
        InputError: The argument is not a pattern, or matches nothing.
    """
    if not glob.has_magic(argument):
        raise InputError(f"{argument}: no such file or folder")
    found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise InputError(f"{argument}: matches nothing")
    return found


def folders(root: str) -> dict[str, list[str]]:
    """Return image paths by class, from a folder with one folder for each class, named like it.

    Raises:
        InputError: There is no such folder or none in it, one of them has no image, or images lie beside them.
    """
    if kind_of(root) != "folder":
        raise InputError(f"{root}: expected a folder with one folder for each class")
    visible = [path for path in sorted(Path(root).iterdir()) if not path.name.startswith(".")]
    below = [path for path in visible if path.is_dir()]
    if not below:
        raise InputError(
            f"{root}: expected one folder for each class, there is none; make one, or name the class to sar-bank add"
        )
    if loose := [path for path in visible if not path.is_dir() and has_image_suffix(path.name)]:
        raise InputError(f"{loose[0]}: lies beside the folders of classes; move it into that of its class")
    return {unicodedata.normalize("NFC", path.name): list(_images_below(path)) for path in below}


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
