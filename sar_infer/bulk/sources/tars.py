"""Tar shards as webdataset writes them: images are read one after the other and never unpacked to the disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from sar_infer.bulk.items import MOST_BYTES, Flaw, Item, printable
from sar_infer.bulk.places import one_line, open_binary, size_of
from sar_infer.bulk.sources.headers import Member, members
from sar_infer.errors import InputError
from sar_infer.images.formats import has_image_suffix

SUFFIX = ".tar"


@dataclass(frozen=True)
class TarShard:
    """One uncompressed tar file; the size in bytes stands for its content."""

    place: str
    size: int

    @classmethod
    def open(cls, place: str) -> TarShard:
        """Look at a shard.

        Raises:
            InputError: it is not there, or cannot be read.
        """
        try:
            return cls(place, size_of(place))
        except InputError:
            raise
        except Exception as error:  # every storage has errors of its own
            raise InputError(f"{place}: cannot be read: {one_line(error)}") from None

    @property
    def count(self) -> None:
        """Known when it has been read."""
        return

    def items(self) -> Iterator[Item | None]:
        """Members with an image suffix, keys ``SHARD/MEMBER``; a damaged rest is one more, under the shard's key."""
        key = printable(self.place)
        try:
            with open_binary(self.place) as stream:
                yield from _members(stream, key)
        except Exception as error:  # storage raises almost anything
            yield Item(key, Flaw("source", f"the rest cannot be read: {one_line(error)}"))


def _members(stream: IO[bytes], key: str) -> Iterator[Item | None]:
    empty = True
    for member in members(stream):
        empty = False
        if member.kind == tarfile.DIRTYPE:
            continue
        name = PurePosixPath(member.name)
        image = has_image_suffix(name.name) and not name.name.startswith(".")
        yield Item(f"{key}/{printable(member.name)}", _content(stream, member)) if image else None
    if empty:
        raise ValueError("an archive of nothing")


def _content(stream: IO[bytes], member: Member) -> bytes | Flaw:
    if member.sparse:
        return Flaw("unreadable", "cannot be read: a sparse file in the shard; pack it again without --sparse")
    if not member.is_file:
        return Flaw("unreadable", "cannot be read: a link or a device in the shard, not a file")
    if member.size > MOST_BYTES:
        return Flaw("size", f"too large: {member.size} bytes, at most {MOST_BYTES}")
    stream.seek(member.start)
    content = stream.read(member.size)
    return content if len(content) == member.size else Flaw("unreadable", "cannot be read: the shard ends inside it")
