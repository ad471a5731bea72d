"""Check pages and footers of Parquet files before pyarrow unpacks them.

pyarrow unpacks a page whole, up to the 2 GiB that its header may claim, and has no setting that limits this; the sizes
in the file's footer need not be true. So its reads go through a stream that checks the headers of the pages.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO, Any

_FREE = 64 * 2**20
_RATIO = 32
_BEYOND = (2**16, 2**24)
"""Bytes read beyond what pyarrow asked for, if that ends inside a header; pyarrow accepts no longer header."""
_DEEPEST = 32
_LONGEST_FOOTER = 2**24
_MOST_ENTRIES = 200_000
_DAMAGED = "a header of its pages, or its footer, is damaged"
_STOP, _BINARY, _LIST, _STRUCT = 0, 8, 9, 12
_BOOLS, _INTEGERS, _WIDTHS = (1, 2), (4, 5, 6), {1: 1, 2: 1, 3: 1, 7: 8}
"""Kinds of fields in Thrift; a boolean takes a byte in a list and none in a struct."""
_LONG_LIST = 15
Field = int | bytes | list["Field"] | dict[int, "Field"]


def allowed(packed: int) -> int:
    """Return to how many bytes this many packed ones may unpack: 32 times as many, plus 64 MiB.

    Images hardly shrink when they are packed, so files of images come nowhere near this.
    """
    return _FREE + _RATIO * packed


@dataclass(frozen=True)
class ColumnChunk:
    """The pages of a column in one row group: the first byte in the file, and the one after the last."""

    start: int
    end: int


class CheckedPages(io.RawIOBase):
    """A seekable stream for pyarrow that returns pages only if their unpacked size is ``allowed``.

    ``watch`` sets the pages that may be read from then on. A read raises ValueError if a page unpacks to more, or if
    pages do not match their headers and the footer.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._chunk: ColumnChunk | None = None
        self._known = 0

    def watch(self, chunk: ColumnChunk) -> None:
        """Allow the pages of a column in one row group from now on, and nothing else."""
        self._chunk, self._known = chunk, chunk.start

    def read(self, size: int = -1) -> bytes:
        """Return this many bytes, fewer at the end."""
        at = self._stream.tell()
        data = self._stream.read(size)
        if self._chunk is not None:
            self._check(self._chunk, at, data)
        return data

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a byte."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._stream.tell()

    def _check(self, chunk: ColumnChunk, at: int, data: bytes) -> None:
        end = at + len(data)
        if not chunk.start <= at <= self._known or end > chunk.end:
            raise ValueError("its pages are not where its footer says")
        while self._known < end:
            length, unpacked, packed = self._header(data, self._known - at)
            if unpacked > allowed(packed):
                raise ValueError(f"a page of {packed} bytes unpacks to {unpacked}, more than {_RATIO} times as many")
            self._known += length + packed
            if self._known > chunk.end:
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
    thrift = _Thrift(data, at)
    fields = thrift.struct()
    unpacked, packed, dictionary = fields.get(2), fields.get(3), fields.get(7)
    values = dictionary.get(1) if isinstance(dictionary, dict) else 0
    if not (isinstance(unpacked, int) and isinstance(packed, int) and isinstance(values, int)):
        raise ValueError(_DAMAGED)
    if min(unpacked, packed) < 0 or not 0 <= values <= unpacked:  # pyarrow allocates for values before it reads them
        raise ValueError(_DAMAGED)
    return thrift.at - at, unpacked, packed


def read_footer(stream: IO[bytes], size: int) -> list[list[Any]]:
    """Return the columns of every row group as the footer of a file of this size says; ``chunks`` takes them.

    pyarrow could do this, but needs a kilobyte for an entry that may have three bytes, and ends the process if a column
    is encrypted.

    Raises:
        ValueError: the footer is too long, has too many entries, or is damaged.
    """
    stream.seek(max(0, size - 8))
    length = int.from_bytes(stream.read(4), "little")
    if length > min(_LONGEST_FOOTER, size):
        raise ValueError(f"its footer has {length} bytes, at most {_LONGEST_FOOTER}")
    stream.seek(max(0, size - 8 - length))
    try:
        footer: Any = _Thrift(stream.read(length), 0, _MOST_ENTRIES).struct()
        return [group[1] for group in footer.get(4, [])]
    except (IndexError, KeyError, TypeError):
        raise ValueError(_DAMAGED) from None
    finally:
        stream.seek(0)


def chunks(footer: list[list[Any]], path: str) -> list[ColumnChunk]:
    """Return where a column is in every row group.

    Raises:
        ValueError: a row group has no such column.
    """
    return [_chunk(columns, path.encode()) for columns in footer]


def _chunk(columns: Any, path: bytes) -> ColumnChunk:
    """Return where a column is, from the ``ColumnMetaData`` of a row group's ``ColumnChunk``s."""
    try:
        (found,) = [column[3] for column in columns if b".".join(column.get(3, {}).get(3, [])) == path]
        start, dictionary, length = found[9], found.get(11, found[9]), found[7]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"a row group has no column {path.decode()!r}, or it is encrypted") from None
    if 0 < dictionary < start:
        start = dictionary
    return ColumnChunk(start, start + length)


class _Thrift:
    """A reader of Thrift's compact protocol that limits the entries of lists."""

    def __init__(self, data: bytes, at: int, entries: int = 0) -> None:
        self.data, self.at, self._entries = data, at, entries

    def struct(self, depth: int = 0) -> dict[int, Field]:
        """Return the fields of a struct by number; floating-point numbers and booleans are 0.

        Raises:
            IndexError: the data ends inside the struct.
            ValueError: it is damaged, or lists have more entries than allowed.
        """
        fields: dict[int, Field] = {}
        field = 0
        while (kind := self.data[self.at] & 15) != _STOP:
            step = self.data[self.at] >> 4
            self.at += 1
            field = field + step if step else self._integer()
            field = (field + 2**15) % 2**16 - 2**15  # of 16 bits, as in pyarrow
            fields[field] = 0 if kind in _BOOLS else self._value(kind, depth)
        self.at += 1
        return fields

    def _value(self, kind: int, depth: int) -> Field:
        if depth > _DEEPEST:
            raise ValueError(_DAMAGED)
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _LIST:
            return self._list(depth)
        length = self._varint() if kind == _BINARY else _WIDTHS.get(kind)
        if length is None:
            raise ValueError(_DAMAGED)  # Parquet has no sets and maps
        self.at += length
        return self.data[self.at - length : self.at] if kind == _BINARY else 0

    def _list(self, depth: int) -> list[Field]:
        count, kind = self.data[self.at] >> 4, self.data[self.at] & 15
        self.at += 1
        if count == _LONG_LIST:
            count = self._varint()
        if kind in (_STRUCT, _BINARY, _LIST):  # which take far more memory than their bytes
            self._entries -= count
            if self._entries < 0:
                raise ValueError("its footer has too many entries")
        values = []
        for _ in range(count):
            values.append(self._value(kind, depth + 1))
            self.data[self.at - 1]  # so that a count without entries runs into the end
        return values

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError(_DAMAGED)
