"""Read tar shards as webdataset writes them, image by image, without unpacking to disk.

Headers may come from strangers, so each is read once, in time that grows with its length. Python's own reader takes
minutes and gigabytes for a hundred kilobytes of them (maps of sparse files, overlapping records of a pax header) and
never ends where a size is negative. Only the name, kind and size of a member matter here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from sar_infer.bulk.items import MOST_BYTES, Flaw, Item, printable
from sar_infer.bulk.places import open_binary, size_of
from sar_infer.errors import InputError, reason_of
from sar_infer.images.formats import has_image_suffix

SUFFIX = ".tar"
_BLOCK = 512
_LONGEST = 2**20
"""Bytes of a header with a long name or pax records."""
_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_WANTED = {b"path": "path", b"size": "size", b"GNU.sparse.name": "sparse name"}
_DIGITS = 19
"""The most digits of a number in a pax record."""


@dataclass(frozen=True)
class TarShard:
    """One uncompressed tar file, identified by its place and size in bytes."""

    place: str
    size: int

    @classmethod
    def open(cls, place: str) -> TarShard:
        """Return the shard at a path or URL.

        Raises:
            InputError: it does not exist or cannot be read.
        """
        try:
            return cls(place, size_of(place))
        except InputError:
            raise
        except Exception as error:  # every storage has errors of its own
            raise InputError(f"{place}: cannot be read: {reason_of(error)}") from None

    @property
    def count(self) -> None:
        """Return None: the number is not known before the shard is read."""
        return

    def items(self) -> Iterator[Item | None]:
        """Yield members with an image suffix, keys ``SHARD/MEMBER``; a damaged rest is one more item, key ``SHARD``."""
        key = printable(self.place)
        try:
            with open_binary(self.place) as stream:
                yield from _members(stream, key)
        except Exception as error:  # storage raises almost anything
            yield Item(key, Flaw("source", f"the rest cannot be read: {reason_of(error)}"))


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


@dataclass(frozen=True)
class Member:
    """A member of a tar file.

    Attributes:
        name: Its name, unchanged; bytes that are not UTF-8 are surrogates.
        kind: Its type flag, one of those in ``tarfile``.
        start: The first byte of its content.
        size: Bytes of its content.
        sparse: Whether only parts of it are stored.
    """

    name: str
    kind: bytes
    start: int
    size: int
    sparse: bool

    @property
    def is_file(self) -> bool:
        """Return whether it is a regular file."""
        return self.kind in tarfile.REGULAR_TYPES

    @property
    def end(self) -> int:
        """Return where the next header starts."""
        has_content = self.is_file or self.kind not in tarfile.SUPPORTED_TYPES
        return self.start + (_padded(self.size) if has_content else 0)


def members(stream: IO[bytes]) -> Iterator[Member]:
    """Yield the members of a seekable tar file, in order, up to its end mark.

    Raises:
        ValueError: a header is damaged or too long, or the file lacks its end mark or continues after it.
        OSError: the stream cannot be read.
    """
    at = 0
    common: dict[str, str] = {}
    own: dict[str, str] = {}
    while (found := _header(stream, at)) is not None:
        header, map_goes_on = found
        if header.type in _NAMES or header.type in _PAX:
            content = _extension(stream, header.size)
            if header.type in _PAX:
                (common if header.type == tarfile.XGLTYPE else own).update(_records(content))
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                own["path"] = content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            at += _BLOCK + _padded(header.size)
        else:
            if header.type == tarfile.GNUTYPE_SPARSE and map_goes_on:
                _pass_map(stream)
            member = _member(header, stream.tell(), common | own)
            yield member
            own, at = {}, member.end
    _check_end(stream, at)


def _header(stream: IO[bytes], at: int) -> tuple[tarfile.TarInfo, bool] | None:
    """Return the header at a byte, and whether more of a sparse file's map follows; None for the end mark.

    Leave the stream right after the header.
    """
    stream.seek(at)
    block = stream.read(_BLOCK)
    if len(block) < _BLOCK:
        raise ValueError("it ends without the mark of an end, so something may be missing")
    if not any(block):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        raise ValueError(f"damaged at byte {at}") from None
    if header.size < 0:
        raise ValueError(f"damaged at byte {at}: a size of {header.size}")
    if block[257:265] == tarfile.GNU_MAGIC:  # which has times where others have the start of a long name
        header.name = block[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return header, bool(block[482])


def _member(header: tarfile.TarInfo, start: int, settings: dict[str, str]) -> Member:
    """Return the member of a header, changed as its extended headers say."""
    size = header.size
    if (given := settings.get("size")) is not None:
        if not (given.isascii() and given.isdecimal() and len(given) <= _DIGITS):
            raise ValueError(f"a header gives {given[:40]!r} as a size")
        size = int(given)
    name = settings.get("sparse name", settings.get("path", header.name))
    sparse = header.type == tarfile.GNUTYPE_SPARSE or "sparse" in settings
    return Member(name.rstrip("/"), header.type, start, size, sparse)


def _pass_map(stream: IO[bytes]) -> None:
    """Skip the blocks that continue the map of a sparse file (GNU tar, ``struct sparse_header``)."""
    more = 1
    while more:
        block = stream.read(_BLOCK)
        if len(block) < _BLOCK:
            raise ValueError("it ends inside a header")
        more = block[504]


def _extension(stream: IO[bytes], size: int) -> bytes:
    if size > _LONGEST:
        raise ValueError(f"a header of {size} bytes")
    content = stream.read(size)
    if len(content) < size:
        raise ValueError("it ends inside a header")
    return content


def _records(content: bytes) -> dict[str, str]:
    """Return the wanted pax records: each is ``LENGTH KEY=VALUE`` and a newline, LENGTH counting the whole record."""
    found: dict[str, str] = {}
    at = 0
    while at < len(content) and content[at]:
        length, space, _ = content[at : at + _DIGITS + 1].partition(b" ")
        end = at + int(length) if space and length.isdigit() else at
        record = content[at + len(length) + 1 : end]
        if end > len(content) or not record.endswith(b"\n"):
            raise ValueError("a damaged pax header")
        key, _, value = record[:-1].partition(b"=")
        if key.startswith(b"GNU.sparse."):
            found["sparse"] = "yes"
        if key in _WANTED:
            found[_WANTED[key]] = value.decode("utf-8", "surrogateescape")
        at = end
    return found


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _check_end(stream: IO[bytes], at: int) -> None:
    """Raise if anything follows the end mark.

    Raises:
        ValueError: something does.
    """
    stream.seek(at)
    while block := stream.read(2**20):
        if block.count(0) < len(block):
            raise ValueError(f"more follows the mark of an end at byte {at}: a hole, or a second archive")
