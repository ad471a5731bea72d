"""The IMAGE arguments of the command line: files, folders, glob patterns and standard input."""

from __future__ import annotations

import glob
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from sar_infer.errors import InputError, reason_of
from sar_infer.images.formats import SUFFIXES, UNREAD, has_image_suffix, left_out, suffix_of
from sar_infer.text.names import spoken

STDIN = "-"
_KNOWN = SUFFIXES | UNREAD
Warn = Callable[[str], object]


def expand(arguments: Iterable[str], warn: Warn = lambda _: None, missing: Collection[str] = ()) -> list[str]:
    """Return image paths for files, folders, glob patterns and ``-``, in the order given.

    A file that is named itself is taken whatever its suffix. A folder is searched with all its subfolders for visible
    files with an image suffix, which are sorted.

    Args:
        arguments: The arguments.
        warn: Called with a line about images in folders whose format is not read.
        missing: Arguments to keep as they are, though nothing is there.

    Raises:
        InputError: Nothing is there, or a folder holds no image or cannot be listed.
    """
    unread: list[str] = []
    image_paths = [path for name in arguments for path in ([name] if name in missing else _expand(name, unread))]
    _tell(unread, warn)
    return image_paths


def expand_present(arguments: Sequence[str], warn: Warn = lambda _: None) -> list[str]:
    """Return image paths as `expand` does, but keep a missing file among others, which fails when it is read.

    Raises:
        InputError: All of them are missing, a folder holds no image, or a pattern matches nothing.
    """
    missing = {name for name in arguments if name != STDIN and not glob.has_magic(name) and not kind_of(name)}
    return expand(arguments, warn, missing if missing != set(arguments) else ())


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
    paths = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not paths:
        raise InputError(f"{argument}: matches nothing")
    return paths


def folders(
    root: str, warn: Warn = lambda _: None, lookup: Callable[[str], object] = lambda _: None
) -> dict[str, list[str]]:
    """Return image paths by class, from a folder with one folder for each class, named like it.

    As in training, underscores in the name of a folder are spaces, unless a class has that very name, and a folder such
    as ``__MACOSX`` is none.

    Args:
        root: The folder.
        warn: Is told of files that are left out.
        lookup: Returns None if no class has this name.

    Raises:
        InputError: There is no such folder or none in it, one of them has no image, or images lie beside them.
    """
    if kind_of(root) != "folder":
        raise InputError(f"{root}: expected a folder with one folder for each class")
    try:
        visible = [path for path in sorted(Path(root).iterdir()) if not path.name.startswith((".", "__"))]
    except OSError as error:
        raise _unlistable(error) from None
    below = [path for path in visible if path.is_dir()]
    if not below:
        raise InputError(
            f"{root}: expected one folder for each class, there is none; make one, or name the class to sar-bank add"
        )
    if loose := [path for path in visible if not path.is_dir() and has_image_suffix(path.name)]:
        raise InputError(f"{loose[0]}: lies beside the folders of classes; move it into that of its class")
    unread: list[str] = []
    paths_by_class: dict[str, list[str]] = {}
    for path in below:
        name = unicodedata.normalize("NFC", path.name)
        paths_by_class.setdefault(spoken(name) if lookup(name) is None else name, []).extend(
            _images_below(path, unread)
        )
    _tell(unread, warn)
    return paths_by_class


def _expand(argument: str, unread: list[str]) -> Iterator[str]:
    kind = "file" if argument == STDIN else kind_of(argument)
    if kind == "file":
        yield argument
    elif kind == "folder":
        yield from _images_below(Path(argument), unread)
    else:
        for path in matches(argument):
            yield from _expand(path, unread)


def _images_below(folder: Path, unread: list[str]) -> list[str]:
    """Return the images in a folder, sorted, and add to ``unread`` those whose format is not read."""

    def failed(error: OSError) -> None:
        raise _unlistable(error)

    files: list[str] = []
    for root, below, names in os.walk(folder, onerror=failed):
        below[:] = [name for name in below if not name.startswith(".")]
        files += (str(Path(root, name)) for name in names if not name.startswith(".") and suffix_of(name) in _KNOWN)
    files.sort()
    image_paths = [path for path in files if has_image_suffix(path)]
    unread += [path for path in files if not has_image_suffix(path)]
    if not image_paths:
        lines = [f"{folder}: a folder without images (looked for {', '.join(sorted(SUFFIXES))})"]
        _tell(unread, lines.append)
        raise InputError("; ".join(lines))
    return image_paths


def _tell(unread: Sequence[str], warn: Warn) -> None:
    if unread:
        warn(left_out(Counter(map(suffix_of, unread)), unread[0]))


def _unlistable(error: OSError) -> InputError:
    return InputError(f"{error.filename}: cannot be listed: {reason_of(error)}")
