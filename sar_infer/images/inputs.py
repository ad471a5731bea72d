"""Arguments that name photos: files, folders, glob patterns, lists and standard input."""

from __future__ import annotations

import csv
import glob
import io
import os
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from sar_infer.errors import InputError, WriteError, raised_as, reason_of
from sar_infer.images.formats import SUFFIXES, UNREAD, has_image_suffix, left_out, suffix_of
from sar_infer.images.projects import PROJECT, in_project, is_project, project_photos
from sar_infer.storage.files import write_atomically
from sar_infer.text.names import name_key, spoken

STDIN = "-"
LISTS = (".txt", ".lst", ".csv")
CONTAINERS = (".tar", ".parquet")
"""Suffixes of files that hold many images; only bulk runs and ``sar-bank learn`` read them."""
Warn = Callable[[str], object]
Skipped = dict[str, tuple[int, str]]
"""Files that a search of folders skipped: number and first path, by kind: a suffix, ``""`` (no suffix), or ``link``."""
Tree = Iterable[tuple[str, list[str], list[str]]]
"""Folders with the names of their subfolders and files, as ``os.walk`` yields them."""
COLUMNS = ("class", "photo", "group")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins with one of these is a formula to a spreadsheet."""


# ------------------------------------------------------------------------------------------------------------- folders
def images_below(folder: str, skipped: Skipped, tree: Tree | None = None) -> Iterator[str]:
    """Yield the visible images of a folder, sorted, and then those of its subfolders.

    Args:
        folder: The folder.
        skipped: Receives everything that is passed over although images may be there; see ``skipped_lines``.
        tree: The folders of storage, from the folder on; None walks the local folder.

    Raises:
        InputError: There is no image, or a folder cannot be listed.
    """

    def failed(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {reason_of(error)}")

    here, empty = Skipped(), True
    for root, folders, files in os.walk(folder, onerror=failed) if tree is None else tree:
        folders[:] = sorted(name for name in folders if name and not name.startswith("."))
        for name in sorted(files):
            if not name or name.startswith("."):
                continue
            path = str(Path(root, name)) if tree is None else f"{root}/{name}"
            if (suffix := suffix_of(name)) in SUFFIXES:
                empty = False
                yield path
            elif not suffix or suffix in UNREAD or suffix in CONTAINERS:
                _skip(here, suffix, path)
        for name in folders:
            if tree is None and Path(root, name).is_symlink():
                _skip(here, "link", str(Path(root, name)))
    if empty:
        raise InputError("; ".join([f"{folder}: a folder without images", *skipped_lines(here)]))
    for kind, (count, first) in here.items():
        _skip(skipped, kind, first, count)


def _skip(skipped: Skipped, kind: str, path: str, count: int = 1) -> None:
    before, first = skipped.get(kind, (0, path))
    skipped[kind] = before + count, first


def skipped_lines(skipped: Skipped) -> Iterator[str]:
    """Yield a line for each kind of entry that was passed over, with advice."""
    if unread := {kind: entry for kind, entry in skipped.items() if kind in UNREAD}:
        yield left_out({kind: count for kind, (count, _) in unread.items()}, next(iter(unread.values()))[1])
    for kind, entries, advice in (
        ("", "files without a suffix", "put them in a list (.txt)"),
        ("link", "linked folders", "name them too"),
        *((suffix, f"{suffix} files", f"name them, or a pattern, '**/*{suffix}'") for suffix in CONTAINERS),
    ):
        if kind in skipped:
            count, first = skipped[kind]
            yield f"{entries} are passed over ({count:,}, such as {first}); {advice}"


def expand(arguments: Iterable[str], warn: Warn = lambda _: None, missing: Collection[str] = ()) -> list[str]:
    """Return image paths for files, folders, glob patterns and ``-``, in the order given.

    A file that is named itself is taken whatever its suffix; a folder is searched with all its subfolders.

    Args:
        arguments: The arguments.
        warn: Called with a line about what is passed over in folders.
        missing: Arguments to keep as they are, though nothing is there.

    Raises:
        InputError: Nothing is there, or a folder holds no image or cannot be listed.
    """
    skipped = Skipped()
    paths: list[str] = []
    for name in arguments:
        paths.extend([name] if name == STDIN or name in missing else files_of(name, skipped))
    for line in skipped_lines(skipped):
        warn(line)
    return paths


def files_of(argument: str, skipped: Skipped) -> Iterator[str]:
    """Yield the paths of a file, folder, project or glob pattern.

    Raises:
        InputError: Nothing is there, or a folder holds no image or cannot be listed.
    """
    kind = kind_of(argument)
    if is_project(argument):
        yield from (photo for photos in project_photos(argument).values() for photo in photos)
    elif kind == "file":
        yield argument
    elif kind == "folder":
        yield from images_below(argument, skipped)
    elif not glob.has_magic(argument):
        raise InputError(f"{argument}: no such file or folder")
    else:
        paths = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not paths:
            raise InputError(f"{argument}: matches nothing")
        for path in paths:
            yield from images_below(path, skipped) if Path(path).is_dir() else [path]


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


def folders(
    root: str, warn: Warn = lambda _: None, lookup: Callable[[str], object] = lambda _: None
) -> dict[str, list[str]]:
    """Return image paths by class, from a folder or project with one folder for each class, named like it.

    As in training, underscores in the name of a folder are spaces, unless a class has that very name, and a folder such
    as ``__MACOSX`` is none.

    Args:
        root: The folder, or a project file (``images.projects``).
        warn: Called with a line about what is passed over.
        lookup: Returns None if no class has this name.

    Raises:
        InputError: There is no such folder or none in it, one of them has no image, images lie next to them, or all
            photos lie in folders one level further down.
    """
    kind = kind_of(root)
    paths_by_class: dict[str, list[str]] = {}

    def photos_of(folder: str) -> list[str]:
        name = unicodedata.normalize("NFC", folder)
        return paths_by_class.setdefault(spoken(name) if lookup(name) is None else name, [])

    if kind is None:
        raise InputError(f"{root}: no such file or folder")
    if is_project(root):
        for name, photos in project_photos(root).items():
            photos_of(name).extend(photos)
        return paths_by_class
    if kind == "file":
        raise InputError(f"{root}: expected a folder with one folder for each class, or a {PROJECT} project")
    with raised_as(InputError, f"{root}: cannot be listed", OSError):
        visible = [path for path in sorted(Path(root).iterdir()) if not path.name.startswith((".", "__"))]
    below = [path for path in visible if path.is_dir()]
    if not below:
        raise InputError(
            f"{root}: expected one folder for each class, there is none; make one, or name the class to sar-bank add"
        )
    if loose := [path for path in visible if not path.is_dir() and has_image_suffix(path.name)]:
        raise InputError(f"{loose[0]}: lies next to the class folders; move it into the folder of its class")
    skipped = Skipped()
    for path in below:
        photos_of(path.name).extend(images_below(str(path), skipped))
    if not any(Path(image).parent in below for paths in paths_by_class.values() for image in paths):
        raise InputError(
            f"{root}: one level too high: its photos lie in folders of folders; name one of these, such as {below[0]}"
        )
    for line in skipped_lines(skipped):
        warn(line)
    return paths_by_class


# --------------------------------------------------------------------------------------------------------------- lists
def list_rows(stream: IO[bytes], location: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, class and photo of each row of a list; the class is empty if the list has none.

    A list is a CSV file with the column ``photo`` and often ``class``, or text with a path or URL a line, without
    comments. A path in a CSV file is relative to it; in text it is unchanged.

    Args:
        stream: The content, UTF-8; other bytes in paths are kept.
        location: Its path or URL; its suffix determines the kind.

    Raises:
        InputError: The list has no row, lacks a column, or is no such file.
    """
    number, empty = 0, True
    with io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="") as lines:
        try:
            if suffix_of(location) == ".csv":
                reader = csv.DictReader(lines)
                if "photo" not in (reader.fieldnames or ()):
                    raise InputError(f"{location}: no column 'photo'; expected a list with the columns class and photo")
                for row in reader:
                    number, name, photo = reader.line_num, row.get("class") or "", row["photo"] or ""
                    name = name[1:] if name[:1] == "'" and name[1:2] in _FORMULA else name
                    empty = False
                    yield number, name.strip(), os.path.join(os.path.dirname(location), photo) if photo else ""  # noqa: PTH118, PTH120 - a URL too
            else:
                for number, line in enumerate(lines, 1):
                    if number == 1 and line.startswith(("\udcff\udcfe", "\udcfe\udcff")):  # as PowerShell writes it
                        raise InputError(f"{location}: a list in UTF-16; save it as UTF-8")
                    if line := line.rstrip("\r\n"):
                        empty = False
                        yield number, "", line
        except (csv.Error, ValueError) as error:
            raise InputError(f"{location}: line {number + 1}: {reason_of(error)}") from None
    if empty:
        raise InputError(f"{location}: an empty list; write one path or URL a line")


def is_class_list(path: str) -> bool:
    """Return whether a file is a list of photos with their classes, by its suffix."""
    return suffix_of(path) == ".csv" and Path(path).is_file()


def read_class_list(path: Path) -> dict[str, list[str]]:
    """Return image paths by class from a CSV file; rows without a class are ignored.

    Raises:
        InputError: The file cannot be read, names no class, or names a photo that is not there.
    """
    paths, spellings = dict[str, list[str]](), dict[str, str]()
    with raised_as(InputError, f"{path}: cannot be read", OSError):
        for number, name, photo in list_rows(path.open("rb"), str(path)):
            if name and not (Path(photo).is_file() or in_project(photo)):
                raise InputError(f"{path}: line {number}: {photo!r:.200} is no file")
            if name:
                paths.setdefault(spellings.setdefault(name_key(name), name), []).append(photo)
    if not paths:
        raise InputError(f"{path}: names no class; write one next to each photo, in the column class")
    return paths


def read_excluded(path: Path | None) -> frozenset[str]:
    """Return the absolute paths of the photos of a list, without links; none without a list.

    Raises:
        InputError: The list cannot be read.
    """
    with raised_as(InputError, f"{path}: cannot be read", OSError):
        rows = [] if path is None else [*list_rows(path.open("rb"), str(path))]
    return frozenset(os.path.realpath(photo) for _, _, photo in rows)


def left_out_line(path: Path | None, excluded: frozenset[str], photos: set[str]) -> str:
    """Return a line that counts the photos of a list that are left out, and names the first one that is no photo."""
    first = "".join(f"; not among the photos: {one}" for one in sorted(excluded - photos)[:1])
    return f"left out {len(excluded & photos):,} of {len(excluded):,} photos in {path}{first}"


def write_class_list(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write rows of class, photo and group, whole or not at all, quoted where the page of groups quotes too.

    Raises:
        WriteError: The file cannot be written.
    """
    lines = [COLUMNS]
    lines += [
        (cell(name), f"./{photo}" if photo.startswith(_FORMULA) else photo, cell(group)) for name, photo, group in rows
    ]
    text = "".join(",".join(map(_quoted, line)) + "\n" for line in lines)
    with raised_as(WriteError, f"{path}: cannot be written", OSError):
        write_atomically(path, [text.encode("utf-8", "surrogateescape")])


def _quoted(text: str) -> str:
    """Return a cell in quotes if it needs them; Python 3.11's csv module would leave a carriage return without."""
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def cell(text: str) -> str:
    """Return text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
