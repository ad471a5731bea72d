"""Tar shards as webdataset writes them: images are read one after the other and never unpacked to the disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from sar_infer.bulk.items import MOST_BYTES, Flaw, Item, printable
from sar_infer.bulk.places import one_line, open_binary, size_of
from sar_infer.errors import InputError
from sar_infer.inputs import SUFFIXES

SUFFIX = ".tar"
_BLOCK = 512


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
        except Exception as error:  # tarfile and storage raise almost anything
            yield Item(key, Flaw("source", f"the rest cannot be read: {one_line(error)}"))


def _members(stream: IO[bytes], key: str) -> Iterator[Item | None]:
    empty = True
    with tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:  # type: ignore[call-overload] # all that is called
        while (member := tar.next()) is not None:
            tar.members.clear()  # it would keep every header it has seen
            empty = False
            name = PurePosixPath(member.name)
            if member.isdir():
                continue
            image = name.suffix.lower() in SUFFIXES and not name.name.startswith(".")
            yield Item(f"{key}/{printable(member.name)}", _content(tar, member)) if image else None
        _check_end(stream, tar.offset)
    if empty:
        raise tarfile.ReadError("an archive of nothing")


class _Bounded:
    """A stream that gives no more at a time than an image may have, whatever length a header claims for a name."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if size > MOST_BYTES + _BLOCK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Flaw:
    if not member.isreg():
        return Flaw("unreadable", "cannot be read: a link or a device in the shard, not a file")
    if member.size > MOST_BYTES:
        return Flaw("size", f"too large: {member.size} bytes, at most {MOST_BYTES}")
    data = tar.extractfile(member)
    content = data.read() if data else b""
    return content if len(content) == member.size else Flaw("unreadable", "cannot be read: the shard ends inside it")


def _check_end(stream: IO[bytes], offset: int) -> None:
    """See that the archive has ended where tarfile stopped: a damaged header looks like the end to it.

    Raises:
        tarfile.ReadError: it has not.
    """
    stream.seek(offset)
    block = stream.read(_BLOCK)
    if len(block) < _BLOCK:
        raise tarfile.ReadError("it ends without the mark of an end, so something may be missing")
    if any(block):
        raise tarfile.ReadError(f"damaged at byte {offset}")
    while block := stream.read(2**20):
        if block.count(0) < len(block):
            raise tarfile.ReadError(f"more follows the mark of an end at byte {offset}: a hole, or a second archive")
