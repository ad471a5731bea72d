"""From SOURCE arguments to numbered chunks."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sar_infer.bulk.chunks import Chunk, container
from sar_infer.bulk.containers import TAR, row_groups
from sar_infer.bulk.locations import filesystem, is_url, open_binary
from sar_infer.errors import InputError, raised_as
from sar_infer.images.inputs import (
    CONTAINERS,
    LISTS,
    Skipped,
    Warn,
    files_of,
    images_below,
    kind_of,
    list_rows,
    skipped_lines,
)

_SMALLEST, _LARGEST, _SHARE = 64, 4096, 64
"""Images of a chunk, unless a size is given: a 64th of all before it, so that an interrupted run loses little."""
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


@dataclass(frozen=True)
class InputSources:
    """The inputs of a run.

    Attributes:
        arguments: Files, folders, globs, brace patterns, URLs, lists.
        column: Column of the images in Parquet files.
        key_column: Column of their keys; None = ``FILE#ROW``.
        chunk_size: Listed images of a chunk; None = more and more, from 64 to 4096. A tar shard or a row group is
            always one chunk.
    """

    arguments: tuple[str, ...]
    column: str = "image"
    key_column: str | None = None
    chunk_size: int | None = None

    def chunks(self, warn: Warn = lambda _: None) -> Iterator[Chunk]:
        """Yield chunks, in the order of the arguments.

        A tar is not opened. A Parquet file whose row groups cannot be listed is one chunk, which says so when it is
        read.

        Args:
            warn: Called with a line about files that are passed over.

        Raises:
            InputError: an argument matches nothing, or pyarrow or a column is missing.
        """
        skipped, numbers, listed = Skipped(), itertools.count(), 0
        every = itertools.chain.from_iterable(locations(argument, skipped) for argument in self.arguments)
        for suffix, group in itertools.groupby(every, container):
            if not suffix:
                size = self.chunk_size or _SMALLEST
                while paths := tuple(itertools.islice(group, size)):
                    yield Chunk(next(numbers), paths)
                    listed += len(paths)
                    size = self.chunk_size or min(_LARGEST, max(_SMALLEST, listed // _SHARE))
                continue
            for location in group:
                groups: list[tuple[int, ...]] = [()]
                if suffix != TAR:
                    try:
                        groups = [*row_groups(location, self.column, self.key_column)]
                    except InputError:
                        raise
                    except Exception:  # noqa: S110 - pyarrow and storage raise almost anything; its rows will say it
                        pass
                for row_group in groups:
                    yield Chunk(next(numbers), (location,), *row_group)
        for line in skipped_lines(skipped):
            warn(line)


def locations(argument: str, skipped: Skipped) -> Iterator[str]:
    """Yield the paths or URLs that an argument matches, at least one, always in the same order.

    Args:
        argument: A file, folder, glob, brace pattern, URL or list.
        skipped: Receives what is passed over in folders.

    Raises:
        InputError: the argument matches nothing.
    """
    if argument.lower().endswith(_COMPRESSED):
        raise InputError(f"{argument}: a compressed tar, which saves nothing on images; unpack it to .tar first")
    if argument.lower().endswith(LISTS):
        with raised_as(InputError, f"{argument}: the list cannot be read"):
            yield from (photo for _, _, photo in list_rows(open_binary(argument), argument) if photo)
    elif (braces := _BRACES.search(argument)) and (is_url(argument) or kind_of(argument) is None):
        first, last, words = braces.groups()
        if words is None:  # {000..010} counts with the digits of its first number
            choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        else:
            choices = words.split(",")
        if not choices:
            raise InputError(f"{argument}: matches nothing")
        for number, choice in enumerate(choices):
            location = argument[: braces.start()] + choice + argument[braces.end() :]
            plain = not (glob.has_magic(location) or _BRACES.search(location))
            if number and plain and location.lower().endswith(CONTAINERS):
                yield location  # only the first file has to exist; a missing one becomes a row, as in a list
            else:
                yield from locations(location, skipped)
    elif is_url(argument):
        yield from _stored(argument, skipped)
    else:
        yield from files_of(argument, skipped)


def _stored(url: str, skipped: Skipped) -> Iterator[str]:
    """Yield what a URL in storage matches, as ``files_of`` does for a path."""
    system, path = filesystem(url)

    def below(folder: str) -> Iterator[str]:
        tree = system.walk(folder, on_error="raise")
        roots = ((str(system.unstrip_protocol(root)).rstrip("/"), folders, files) for root, folders, files in tree)
        return images_below(url, skipped, roots)

    with raised_as(InputError, f"{url}: cannot be listed"):
        try:
            kind = system.info(path)["type"]
        except FileNotFoundError:
            kind = None
        if kind == "file":
            yield url
        elif kind == "directory":
            yield from below(path)
        elif glob.has_magic(path) and (entries := system.glob(path, detail=True)):
            for name, entry in sorted(entries.items()):
                yield from below(name) if entry["type"] == "directory" else [str(system.unstrip_protocol(name))]
        else:
            raise InputError(f"{url}: no such file or folder")
