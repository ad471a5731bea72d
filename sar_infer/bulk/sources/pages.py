"""Pages of Parquet files, judged by their headers before pyarrow unpacks them.

pyarrow unpacks a page whole, up to the 2 GiB that its header may claim, and has no setting that limits this; the sizes
in the file's footer need not be true. So its reads go through a stream that follows the headers of the pages.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO

_FREE = 64 * 2**20
_RATIO = 32
_BEYOND = (2**16, 2**24)
"""Bytes read beyond what pyarrow asked for, where that cuts a header; pyarrow accepts none longer than the last."""
_DEEPEST = 32
_DAMAGED = "the header of a page is damaged"
_STOP, _BYTE, _DOUBLE, _BINARY, _STRUCT = 0, 3, 7, 8, 12
_BOOLS, _INTEGERS = (1, 2), (4, 5, 6)
Field = int | dict[int, "Field"]


def allowed(packed: int) -> int:
    """Return how many bytes so many in a file may become: 32 times as many, and 64 MiB on top.

    Images hardly shrink when they are packed, so files of images come nowhere near this.
    """
    return _FREE + _RATIO * packed


@dataclass
class Chunk:
    """The pages of a column in one row group.

    Attributes:
        start: Its first byte in the file.
        end: The byte behind its last.
        known: The end of the last page that was judged.
    """

    start: int
    end: int
    known: int = -1

    def __post_init__(self) -> None:
        self.known = max(self.known, self.start)


class Judged(io.RawIOBase):
    """A seekable stream that gives pages only if they are ``allowed``; ``chunk``, once set, is all that may be read.

    A read raises ValueError for a page that unpacks to more, and where pages are not as headers and footer say.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.chunk: Chunk | None = None

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer at the end."""
        at = self._stream.tell()
        data = self._stream.read(size)
        if self.chunk is not None:
            self._judge(self.chunk, at, data)
        return data

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a byte."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return where it is."""
        return self._stream.tell()

    def _judge(self, chunk: Chunk, at: int, data: bytes) -> None:
        end = at + len(data)
        if not chunk.start <= at <= chunk.known or end > chunk.end:
            raise ValueError("its pages are not where its footer says")
        while chunk.known < end:
            length, unpacked, packed = self._header(data, chunk.known - at)
            if unpacked > allowed(packed):
                raise ValueError(f"a page of {packed} bytes unpacks to {unpacked}, more than {_RATIO} times as many")
            chunk.known += length + packed
            if chunk.known > chunk.end:
                raise ValueError("a page is longer than its column")

    def _header(self, data: bytes, at: int) -> tuple[int, int, int]:
        for more in _BEYOND:
            try:
                return page_header(data, at)
            except IndexError:
                here = self._stream.tell()
                data = data[at:] + self._stream.read(more)
                self._stream.seek(here)
                at = 0
        try:
            return page_header(data, at)
        except IndexError:
            raise ValueError("the header of a page has no end") from None


def page_header(data: bytes, at: int = 0) -> tuple[int, int, int]:
    """Return the length of a page's header, and the bytes of the page unpacked and packed.

    The header is a struct of Thrift's compact protocol (parquet-format, ``PageHeader``), read as pyarrow reads it.

    Raises:
        IndexError: ``data`` ends inside the header.
        ValueError: it is damaged.
    """
    fields, end = _struct(data, at)
    unpacked, packed, dictionary = fields.get(2), fields.get(3), fields.get(7)
    values = dictionary.get(1) if isinstance(dictionary, dict) else 0
    if not (isinstance(unpacked, int) and isinstance(packed, int) and isinstance(values, int)):
        raise ValueError(_DAMAGED)
    if min(unpacked, packed) < 0 or not 0 <= values <= unpacked:  # pyarrow makes room for values before it reads them
        raise ValueError(_DAMAGED)
    return end - at, unpacked, packed


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Field], int]:
    """Return the fields of a struct by number, and its end; those that are neither integers nor structs are 0."""
    if depth > _DEEPEST:
        raise ValueError(_DAMAGED)
    fields: dict[int, Field] = {}
    field = 0
    while (kind := data[at] & 15) != _STOP:
        step = data[at] >> 4
        at += 1
        if step:
            field += step
        else:
            field, at = _integer(data, at)
        field = (field + 2**15) % 2**16 - 2**15  # of 16 bits, as in pyarrow
        fields[field], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Field, int]:
    if kind in _BOOLS:
        return 0, at
    if kind == _BYTE:
        return 0, at + 1
    if kind in _INTEGERS:
        return _integer(data, at)
    if kind == _DOUBLE:
        return 0, at + 8
    if kind == _BINARY:
        length, at = _varint(data, at)
        return 0, at + length
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    raise ValueError(_DAMAGED)  # it has no lists


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError(_DAMAGED)
