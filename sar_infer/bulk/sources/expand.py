"""What a SOURCE argument stands for: images, tar shards and Parquet files, found one after the other."""

from __future__ import annotations

import glob
import io
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sar_infer.bulk.places import check_url, filesystem, is_url, one_line, open_binary, patiently
from sar_infer.errors import InputError
from sar_infer.images.formats import SUFFIXES
from sar_infer.images.inputs import kind_of, matches

LISTS = (".txt", ".lst")
CONTAINERS = (".tar", ".parquet")
Warn = Callable[[str], object]
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def places(argument: str, warn: Warn = lambda _: None) -> Iterator[str]:
    """At least one path or URL, always in the same order.

    Args:
        argument: A file, folder, glob, brace pattern, URL or list.
        warn: Told of what is passed over in a folder.

    Raises:
        InputError: there is none.
    """
    if argument.lower().endswith(_COMPRESSED):
        raise InputError(f"{argument}: a compressed tar, which saves nothing on images; unpack it to .tar first")
    if argument.lower().endswith(LISTS):
        return _lines(argument)
    if (braces := _BRACES.search(argument)) and (is_url(argument) or kind_of(argument) is None):
        head, tail = argument[: braces.start()], argument[braces.end() :]
        return _chosen((head + choice + tail for choice in _choices(braces)), warn)
    return _stored(argument, warn) if is_url(argument) else _local(argument, warn)


def _chosen(choices: Iterator[str], warn: Warn) -> Iterator[str]:
    """What a brace pattern stands for; shards behind the first may be gone, as in a list, and their rows say so."""
    for number, place in enumerate(choices):
        plain = not (glob.has_magic(place) or _BRACES.search(place))
        if number and plain and place.lower().endswith(CONTAINERS):
            yield place
        else:
            yield from places(place, warn)


def _local(argument: str, warn: Warn) -> Iterator[str]:
    kind = kind_of(argument)
    if kind == "file":
        yield argument
    elif kind == "folder":
        yield from _some(argument, _images_below(argument), warn)
    else:
        for found in matches(argument):  # a text file among them is no list: only what is named is
            yield from _local(found, warn)


def _stored(url: str, warn: Warn) -> Iterator[str]:
    """As ``_local``, in storage."""
    check_url(url)
    system, path = filesystem(url)
    try:
        kind = _stored_kind(system, path)
        if kind == "file":
            yield url
        elif kind == "directory":
            yield from _some(url, _images_stored(system, path), warn)
        elif glob.has_magic(path) and (found := sorted(patiently(lambda: system.glob(path)))):
            yield from (system.unstrip_protocol(name) for name in found)
        else:
            raise InputError(f"{url}: no such object or folder")
    except InputError:
        raise
    except Exception as error:  # every storage has errors of its own
        raise InputError(f"{url}: cannot be listed: {one_line(error)}") from None


def _stored_kind(system: Any, path: str) -> str | None:
    try:
        return str(patiently(lambda: system.info(path))["type"])
    except FileNotFoundError:
        return None


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
        with open_binary(place) as stream, io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape") as lines:
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


def _some(folder: str, found: Iterator[str], warn: Warn) -> Iterator[str]:
    """The images among what is in a folder; there has to be one."""
    images = 0
    passed: Counter[str] = Counter()
    for place in found:
        suffix = posixpath.splitext(place)[1].lower()
        if suffix in CONTAINERS:
            passed[suffix] += 1
        else:
            images += 1
            yield place
    if not images:
        raise InputError(
            f"{folder}: a folder without images; shards are named by a pattern, {_pattern(folder, '.tar')}"
        )
    for suffix, count in sorted(passed.items()):
        warn(f"{folder}: {count:,} {suffix} in it passed over; name them as {_pattern(folder, suffix)}")


def _pattern(folder: str, suffix: str) -> str:
    return f"'{folder.rstrip('/')}/**/*{suffix}'"


def _images_below(folder: str) -> Iterator[str]:
    """Visible images and shards, sorted folder by folder; one folder's names are held at a time."""

    def failed(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {one_line(error)}")

    for root, folders, files in os.walk(folder, onerror=failed):
        folders[:] = _visible(folders)
        yield from (str(Path(root, name)) for name in _images(files))


def _images_stored(system: Any, path: str) -> Iterator[str]:
    entries = {posixpath.basename(entry["name"].rstrip("/")): entry for entry in _ls(system, path)}
    folders = [name for name, entry in entries.items() if entry["type"] == "directory"]
    for name in _images(entries.keys() - set(folders)):
        yield system.unstrip_protocol(entries[name]["name"])
    for name in _visible(folders):
        if entries[name]["name"].rstrip("/") != path.rstrip("/"):  # some list a folder in itself
            yield from _images_stored(system, entries[name]["name"])


def _ls(system: Any, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = patiently(lambda: system.ls(path, detail=True))
    return found


def _images(names: Iterable[str]) -> list[str]:
    wanted = SUFFIXES.union(CONTAINERS)
    return [name for name in _visible(names) if posixpath.splitext(name)[1].lower() in wanted]


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name and not name.startswith("."))
