"""From SOURCE arguments to numbered pieces: one after the other, the same every time, never all in memory."""

from __future__ import annotations

import codecs
import contextlib
import glob
import io
import itertools
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_infer.bulk.items import Broken, Item, Piece, Unit, printable
from sar_infer.bulk.locations import filesystem, is_url, open_binary, patiently
from sar_infer.bulk.sources import row_groups, tars
from sar_infer.bulk.sources.reader import Reader
from sar_infer.errors import InputError, SarInferError, reason_of
from sar_infer.images.formats import SUFFIXES, UNREAD, left_out, suffix_of
from sar_infer.images.inputs import Warn, kind_of, matches

IsWanted = Callable[[int], bool]
LISTS = (".txt", ".lst")
CONTAINERS = (tars.SUFFIX, row_groups.SUFFIX)
_BARE, _LINK = "", "/"
_PASSED_OVER = (
    (_BARE, "files without a suffix", "put them in a list (.txt)"),
    (_LINK, "linked folders", "name them too"),
)
"""Kinds of entries that a search of a folder passes over although images may be there, with advice."""
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


@dataclass(frozen=True)
class InputSources:
    """The inputs of a run.

    Attributes:
        arguments: Files, folders, globs, brace patterns, URLs, lists.
        column: Column of the images in Parquet files.
        key_column: Column of their keys; None = ``FILE#ROW``.
        piece_size: Listed images of a piece; a tar shard or a row group is always one piece.
    """

    arguments: tuple[str, ...]
    column: str = "image"
    key_column: str | None = None
    piece_size: int = 4096

    def check(self) -> None:
        """Check, before anything is done, that every argument stands for something.

        Raises:
            InputError: an argument stands for nothing, or no image is found.
            DeviceError: the reader of Parquet files cannot start.
        """
        with Reader() as reader:
            for argument in self.arguments:
                first = next(locations(argument), None)
                if first is None:
                    raise InputError(f"{argument}: matches nothing")
                if _container(first) == row_groups.SUFFIX:
                    row_groups.check_pyarrow(first)
                    self._row_groups(first, reader)
            if not any(piece.unit.count != 0 for piece in self.pieces(reader=reader)):
                raise InputError(f"{', '.join(self.arguments)}: no image in it")

    def pieces(
        self,
        is_wanted: IsWanted = lambda _: True,
        warn: Warn = lambda _: None,
        listed: Callable[[str], object] | None = None,
        reader: Reader | None = None,
    ) -> Iterator[Piece]:
        """Yield pieces, in the order of the arguments.

        Args:
            is_wanted: Says of a number whether its piece is wanted; other shards are not even opened.
            warn: Called with a line about files that are passed over.
            listed: Called with what identifies each piece, wanted or not: a tar shard by its name alone.
            reader: Reads the footers of Parquet files; None = one of its own.

        Raises:
            InputError: a list or a folder does not exist, or pyarrow is missing.
            DeviceError: the reader cannot start.
        """
        with contextlib.ExitStack() as stack:
            reader = reader or stack.enter_context(Reader())
            for number, unit in enumerate(self._units(warn, reader)):
                if listed is not None:
                    listed(printable(unit) if isinstance(unit, str) else Piece(number, unit).digest)
                if is_wanted(number):
                    yield Piece(number, _shard(unit) if isinstance(unit, str) else unit)

    def _units(self, warn: Warn, reader: Reader) -> Iterator[Unit | str]:
        """Yield the units; a tar shard as its path or URL, which is looked at only if it is wanted."""
        every = itertools.chain.from_iterable(locations(argument, warn) for argument in self.arguments)
        for suffix, group in itertools.groupby(every, _container):
            if suffix == tars.SUFFIX:
                yield from group
            elif suffix == row_groups.SUFFIX:
                for location in group:
                    row_groups.check_pyarrow(location)
                    try:
                        units = self._row_groups(location, reader)
                    except InputError as error:
                        units = [_broken(location, error)]
                    yield from units
            else:
                while paths := tuple(itertools.islice(group, self.piece_size)):
                    yield Paths(paths)

    def _row_groups(self, location: str, reader: Reader) -> Sequence[Unit]:
        """Return the row groups of a Parquet file; a single ``Broken`` if it is damaged or out of reach.

        Raises:
            InputError: it has no such column.
            DeviceError: the reader cannot start.
        """
        try:
            units: list[Unit] = reader.call(row_groups.row_groups, location, self.column, self.key_column)
        except SarInferError:
            raise
        except Exception as error:  # pyarrow and storage raise almost anything
            return [Broken(location, f"cannot be read: {reason_of(error)}")]
        return units


def _container(location: str) -> str:
    """Return the suffix of a file that holds images, empty for all other files."""
    suffix = posixpath.splitext(location)[1].lower()
    return suffix if suffix in CONTAINERS else ""


def _shard(location: str) -> Unit:
    try:
        return tars.TarShard.open(location)
    except InputError as error:
        return _broken(location, error)


def _broken(location: str, error: InputError) -> Broken:
    return Broken(location, str(error).removeprefix(f"{location}: "))


@dataclass(frozen=True)
class Paths:
    """Images that are files of their own: the piece is identified by their paths and URLs, not by their content."""

    paths: tuple[str, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """Return kind and paths."""
        return {"kind": "Paths", "paths": self.paths}

    @property
    def count(self) -> int:
        """Return the number of paths; one that is listed twice is two inputs."""
        return len(self.paths)

    def items(self) -> Iterator[Item]:
        """Yield an item for each path; the worker opens it."""
        for path in self.paths:
            yield Item(printable(path), path)


def locations(argument: str, warn: Warn = lambda _: None) -> Iterator[str]:
    """Yield the paths or URLs that an argument stands for, at least one, always in the same order.

    Args:
        argument: A file, folder, glob, brace pattern, URL or list.
        warn: Called with a line about files in a folder that are passed over.

    Raises:
        InputError: the argument stands for nothing.
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
    """Yield what a brace pattern stands for.

    Only its first tar or Parquet file has to exist: a missing one after it becomes a row with the reason, as in a list.
    """
    for number, location in enumerate(choices):
        plain = not (glob.has_magic(location) or _BRACES.search(location))
        if number and plain and location.lower().endswith(CONTAINERS):
            yield location
        else:
            yield from locations(location, warn)


def _local(argument: str, warn: Warn) -> Iterator[str]:
    kind = kind_of(argument)
    if kind == "file":
        yield argument
    elif kind == "folder":
        yield from _images_among(argument, _files_below(argument), warn)
    else:
        for path in matches(argument):  # a text file among them is no list: only a named one is
            if Path(path).is_dir():
                yield from _images_among(path, _files_below(path), warn, named=False)
            else:
                yield path


def _stored(url: str, warn: Warn) -> Iterator[str]:
    """Yield what a URL in storage stands for, as ``_local`` does for a path."""
    system, path = filesystem(url)
    try:
        kind = _stored_kind(system, path)
        if kind == "file":
            yield url
        elif kind == "directory":
            yield from _images_among(url, _files_stored(system, path), warn)
        elif glob.has_magic(path) and (entries := patiently(lambda: system.glob(path, detail=True))):
            for name, entry in sorted(entries.items()):
                location = str(system.unstrip_protocol(name))
                if entry["type"] == "directory":
                    yield from _images_among(location, _files_stored(system, name), warn, named=False)
                else:
                    yield location
        else:
            raise InputError(f"{url}: no such object or folder")
    except InputError:
        raise
    except Exception as error:  # every storage has errors of its own
        raise InputError(f"{url}: cannot be listed: {reason_of(error)}") from None


def _stored_kind(system: Any, path: str) -> str | None:
    try:
        return str(patiently(lambda: system.info(path))["type"])
    except FileNotFoundError:
        return None


def _choices(braces: re.Match[str]) -> Iterator[str]:
    """Return the choices of a brace pattern: ``{000..010}`` counts with the digits of its first number."""
    first, last, words = braces.groups()
    if words is not None:
        return iter(words.split(","))
    return (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))


def _lines(location: str) -> Iterator[str]:
    """Yield the non-blank lines of a list, unchanged; relative paths start at the current folder."""
    empty = True
    try:
        with open_binary(location) as stream, io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape") as lines:
            if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):  # as Windows PowerShell writes it
                raise InputError(f"{location}: a list in UTF-16; save it as UTF-8")
            stream.seek(0)
            for line in lines:
                if line := line.rstrip("\r\n"):
                    empty = False
                    yield line
    except InputError:
        raise
    except Exception as error:  # every storage has errors of its own
        raise InputError(f"{location}: the list cannot be read: {reason_of(error)}") from None
    if empty:
        raise InputError(f"{location}: an empty list; write one path or URL a line")


def _images_among(folder: str, files: Iterator[str], warn: Warn, *, named: bool = True) -> Iterator[str]:
    """Yield the images among the files of a folder.

    If there is none, raise InputError, or warn if the folder is not named but matches a pattern: the run may be hours
    old by then.
    """
    images = 0
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for location in files:
        suffix = suffix_of(location)
        if suffix in SUFFIXES:
            images += 1
            yield location
        else:
            kind = _LINK if location.endswith("/") else suffix
            counts[kind] += 1
            first.setdefault("unread" if kind in UNREAD else kind, location)
    warnings = []
    if unread := Counter({suffix: count for suffix, count in counts.items() if suffix in UNREAD}):
        warnings.append(left_out(unread, first["unread"]))
    for kind, entries, advice in _PASSED_OVER:
        if counts[kind]:
            warnings.append(f"{folder}: {entries} are passed over ({counts[kind]:,}, such as {first[kind]}); {advice}")
    if not images:
        if not warnings or any(counts[suffix] for suffix in CONTAINERS):
            warnings.append(f"shards are named by a pattern, {_pattern(folder, '.tar')}")
        warnings = [f"{folder}: a folder without images; {'; '.join(warnings)}"]
        if named:
            raise InputError(warnings[0])
    warnings += [
        f"{folder}: {counts[suffix]:,} {suffix} in it passed over; name them as {_pattern(folder, suffix)}"
        for suffix in sorted(CONTAINERS)
        if counts[suffix]
    ]
    for line in warnings:
        warn(line)


def _pattern(folder: str, suffix: str) -> str:
    return f"'{folder.rstrip('/')}/**/*{suffix}'"


def _files_below(folder: str) -> Iterator[str]:
    """Yield visible images, containers, files without a suffix, and linked folders with a slash behind.

    They come sorted, folder by folder, with one folder's names in memory at a time.
    """

    def failed(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {reason_of(error)}")

    for root, folders, files in os.walk(folder, onerror=failed):
        folders[:] = _visible(folders)
        yield from (str(Path(root, name)) for name in _images(files))
        yield from (f"{Path(root, name)}/" for name in folders if Path(root, name).is_symlink())


def _files_stored(system: Any, path: str) -> Iterator[str]:
    listing = patiently(lambda: system.ls(path, detail=True))
    entries = {posixpath.basename(entry["name"].rstrip("/")): entry for entry in listing}
    folders = [name for name, entry in entries.items() if entry["type"] == "directory"]
    for name in _images(entries.keys() - set(folders)):
        yield system.unstrip_protocol(entries[name]["name"])
    for name in _visible(folders):
        if entries[name]["name"].rstrip("/") != path.rstrip("/"):  # some storages list a folder as its own entry
            yield from _files_stored(system, entries[name]["name"])


def _images(names: Iterable[str]) -> list[str]:
    suffixes = SUFFIXES.union(CONTAINERS, UNREAD, (_BARE,))
    return [name for name in _visible(names) if suffix_of(name) in suffixes]


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name and not name.startswith("."))
