"""Headers of tar files from strangers, each read once and in time that grows with its length.

Python's own reader takes minutes and gigabytes for a hundred kilobytes of them (maps of sparse files, records of a pax
header that overlap) and never ends where a size is negative. Here only the name, kind and size of a member matter.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

_BLOCK = 512
_LONGEST = 2**20
"""Bytes of a header with a long name or pax records."""
_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_WANTED = {b"path": "path", b"size": "size", b"GNU.sparse.name": "sparse name"}
_DIGITS = 19
"""Of a number in a pax record."""


@dataclass(frozen=True)
class Member:
    """Something in a tar file.

    Attributes:
        name: As it stands there; bytes that are no UTF-8 are surrogates.
        kind: Type flag, of those in ``tarfile``.
        start: The first byte of its content.
        size: Bytes of its content.
        sparse: Only parts of it are there.
    """

    name: str
    kind: bytes
    start: int
    size: int
    sparse: bool

    @property
    def is_file(self) -> bool:
        """Return whether it is an ordinary file."""
        return self.kind in tarfile.REGULAR_TYPES

    @property
    def end(self) -> int:
        """Return where the next header starts."""
        has_content = self.is_file or self.kind not in tarfile.SUPPORTED_TYPES
        return self.start + (_padded(self.size) if has_content else 0)


def members(stream: IO[bytes]) -> Iterator[Member]:
    """Yield the members of a seekable tar file, in order, up to the mark of its end.

    Raises:
        ValueError: a header is damaged or too long, or the file has no end or goes on behind it.
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
    """Return the header at a byte, and whether more of a sparse file's map follows; None for the mark of the end.

    The stream stands behind it then.
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
    return header, bool(block[482])


def _member(header: tarfile.TarInfo, start: int, settings: dict[str, str]) -> Member:
    """Return the member of a header, with what extended headers say of it."""
    size = header.size
    if (given := settings.get("size")) is not None:
        if not (given.isascii() and given.isdecimal() and len(given) <= _DIGITS):
            raise ValueError(f"a header gives {given[:40]!r} as a size")
        size = int(given)
    name = settings.get("sparse name", settings.get("path", header.name))
    sparse = header.type == tarfile.GNUTYPE_SPARSE or "sparse" in settings
    return Member(name.rstrip("/"), header.type, start, size, sparse)


def _pass_map(stream: IO[bytes]) -> None:
    """Pass the blocks in which the map of a sparse file goes on (GNU tar, ``struct sparse_header``)."""
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
    """Return what matters of pax records: each is ``LENGTH KEY=VALUE`` and the end of a line, LENGTH that of it all."""
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
    """See that nothing follows the mark of the end.

    Raises:
        ValueError: something does.
    """
    stream.seek(at)
    while block := stream.read(2**20):
        if block.count(0) < len(block):
            raise ValueError(f"more follows the mark of an end at byte {at}: a hole, or a second archive")
