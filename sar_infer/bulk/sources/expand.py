"""What a SOURCE argument stands for: images, tar shards and Parquet files, found one after the other."""

from __future__ import annotations

import glob
import io
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sar_infer.bulk.places import check_url, filesystem, is_url, one_line, open_binary
from sar_infer.errors import InputError
from sar_infer.inputs import SUFFIXES

LISTS = (".txt", ".lst")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def places(argument: str) -> Iterator[str]:
    """At least one path or URL, always in the same order.

    Raises:
        InputError: there is none.
    """
    if argument.lower().endswith(_COMPRESSED):
        raise InputError(f"{argument}: a compressed tar, which saves nothing on images; unpack it to .tar first")
    if argument.lower().endswith(LISTS):
        return _lines(argument)
    if (braces := _BRACES.search(argument)) and not Path(argument).exists():
        return _each(argument[: braces.start()] + choice + argument[braces.end() :] for choice in _choices(braces))
    return _stored(argument) if is_url(argument) else _local(argument)


def _local(argument: str) -> Iterator[str]:
    if Path(argument).is_dir():
        return _some(argument, _images_below(argument))
    if Path(argument).is_file():
        return iter([argument])
    if Path(argument).exists():
        raise InputError(f"{argument}: neither a file nor a folder")
    if glob.has_magic(argument):
        found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not found:
            raise InputError(f"{argument}: matches nothing")
        return _each(found)
    raise InputError(f"{argument}: no such file or folder")


def _stored(url: str) -> Iterator[str]:
    """As ``_local``, in storage."""
    check_url(url)
    system, path = filesystem(url)
    try:
        if system.isfile(path):
            yield url
        elif system.isdir(path):
            yield from _some(url, _images_stored(system, path))
        elif glob.has_magic(path) and (found := sorted(system.glob(path))):
            yield from (system.unstrip_protocol(name) for name in found)
        else:
            raise InputError(f"{url}: no such object or folder")
    except InputError:
        raise
    except Exception as error:  # every storage has errors of its own
        raise InputError(f"{url}: cannot be listed: {one_line(error)}") from None


def _each(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        yield from places(argument)


def _choices(braces: re.Match[str]) -> Iterator[str]:
    """``{000..010}`` counts, with as many digits as its first number; ``{a,b}`` lists."""
    first, last, words = braces.groups()
    if words is not None:
        return iter(words.split(","))
    return (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))


def _lines(place: str) -> Iterator[str]:
    """Lines of a list that are not blank, as they stand; a relative path is taken from where the command runs."""
    empty = True
    try:
        with open_binary(place) as stream, io.TextIOWrapper(stream, "utf-8", "surrogateescape") as lines:
            for line in lines:
                if line := line.rstrip("\r\n"):
                    empty = False
                    yield line
    except InputError:
        raise
    except Exception as error:  # every storage has errors of its own
        raise InputError(f"{place}: the list cannot be read: {one_line(error)}") from None
    if empty:
        raise InputError(f"{place}: an empty list; write one path or URL a line")


def _some(folder: str, found: Iterator[str]) -> Iterator[str]:
    first = next(found, None)
    if first is None:
        raise InputError(f"{folder}: a folder without images; shards are named by a pattern, {Path(folder).name}/*.tar")
    yield first
    yield from found


def _images_below(folder: str) -> Iterator[str]:
    """Visible images, sorted folder by folder; one folder's names are held at a time."""

    def failed(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {one_line(error)}")

    for root, folders, files in os.walk(folder, onerror=failed):
        folders[:] = _visible(folders)
        yield from (str(Path(root, name)) for name in _images(files))


def _images_stored(system: Any, path: str) -> Iterator[str]:
    entries = {posixpath.basename(entry["name"].rstrip("/")): entry for entry in system.ls(path, detail=True)}
    folders = [name for name, entry in entries.items() if entry["type"] == "directory"]
    for name in _images(entries.keys() - set(folders)):
        yield system.unstrip_protocol(entries[name]["name"])
    for name in _visible(folders):
        if entries[name]["name"].rstrip("/") != path.rstrip("/"):  # some list a folder in itself
            yield from _images_stored(system, entries[name]["name"])


def _images(names: Iterable[str]) -> list[str]:
    return [name for name in _visible(names) if posixpath.splitext(name)[1].lower() in SUFFIXES]


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name and not name.startswith("."))
