"""Parquet files with the bytes of images: a column of bytes, or of Hugging Face's ``{bytes, path}``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sar_infer.bulk.items import MOST_BYTES, Broken, Flaw, Item, Unit, printable
from sar_infer.bulk.places import open_binary, size_of
from sar_infer.bulk.sources.pages import CheckedPages, ColumnChunk, allowed, chunks, read_footer
from sar_infer.errors import InputError, reason_of

SUFFIX = ".parquet"
_ROWS_AT_ONCE = 1024
_LEAST = 1024
"""The least bytes that a row counts as, even a null."""
_LONGEST_KEY = 2**16
_MOST_GROUPS = 10_000
"""The most row groups of a file; its footer is read again for each."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of a Parquet file; the file is identified by its place and size.

    Attributes:
        place: Path or URL of the file.
        size: Size of the file in bytes.
        group: Number of the row group, from 0.
        first: Number of its first row in the file, from 0.
        rows: How many rows it has.
        column: Column of the images.
        key_column: Column of the keys; without one a key is ``FILE#ROW``.
        images: Where the images are in the file.
        keys: Where the keys are.
    """

    place: str
    size: int
    group: int
    first: int
    rows: int
    column: str
    key_column: str | None
    images: ColumnChunk = field(compare=False)
    keys: ColumnChunk | None = field(compare=False)

    @property
    def count(self) -> int:
        """Return the number of rows, each of which is an input."""
        return self.rows

    def items(self) -> Iterator[Item]:
        """Yield an item for each row; if the rest cannot be read, one more, keyed by the file."""
        row = 0
        try:
            images = _values(self.place, self.group, self.column, self.images)
            keys: Iterator[Any] = itertools.repeat(None)
            if self.key_column is not None and self.keys is not None:
                keys = _values(self.place, self.group, self.key_column, self.keys)
            for content, key in zip(images, keys, strict=False):
                yield self._item(row, content, key)
                row += 1
            if row != self.rows:
                raise ValueError(f"it has {self.rows - row} rows less than its footer says")
        except Exception as error:  # pyarrow and storage raise almost anything
            yield Item(
                printable(self.place), Flaw("source", f"row {self.first + row} on cannot be read: {reason_of(error)}")
            )

    def _item(self, row: int, content: Any, key: Any) -> Item:
        numbered = f"{printable(self.place)}#{self.first + row}"
        if key is None or not key.is_valid:
            return Item(numbered, _content(content))
        if (size := _size(key)) > _LONGEST_KEY:
            return Item(numbered, Flaw("source", f"its key has {size} bytes, at most {_LONGEST_KEY}"))
        return Item(_text(key), _content(content))


def _text(key: Any) -> str:
    """Return a key as text; strings too may hold bytes that are not UTF-8, since not all writers look."""
    key = key.value if _is_dictionary(key.type) else key
    return printable(os.fsdecode(key.as_buffer().to_pybytes())) if hasattr(key, "as_buffer") else str(key.as_py())


def _values(place: str, group: int, column: str, chunk: ColumnChunk) -> Iterator[Any]:
    """Yield the scalars of a column in one row group, a bounded number of bytes at a time.

    A few bytes may unpack to many rows: nulls, or one value of a dictionary repeated. So the bytes of the rows are
    added up, and their sum is limited in proportion to the file. Rows are read one by one, since a few hundred bytes
    may stand for many large rows; only dictionaries, which pyarrow copies for every batch, are read in batches.

    Raises:
        ValueError: the column is damaged, or unpacks to more than is ``allowed``.
    """
    with open_binary(place) as raw:
        stream = CheckedPages(raw)
        file = _opened(stream)
        kind = file.schema_arrow.field(column).type
        path = _path(file.schema_arrow, column)
        stream.watch(chunk)
        left = most = allowed(chunk.end - chunk.start)
        for batch in file.iter_batches(_ROWS_AT_ONCE if _is_dictionary(kind) else 1, [group], [path]):
            values = batch.column(0).flatten()[0] if _is_struct(kind) else batch.column(0)
            left -= values.dictionary.nbytes if _is_dictionary(values.type) else 0
            for value in values:
                left -= max(_size(value), _LEAST)
                if left < 0:
                    raise ValueError(f"its rows become more than {most} bytes, out of all proportion to the file")
                yield value


def _size(value: Any) -> int:
    """Return how many bytes a scalar has, 0 if it has none."""
    value = getattr(value, "value", value) if _is_dictionary(value.type) else value
    return value.as_buffer().size if value.is_valid and hasattr(value, "as_buffer") else 0


def row_groups(place: str, column: str, key_column: str | None) -> Iterator[Unit]:
    """Yield the row groups of a file; a single ``Broken`` if it is damaged or has no such column.

    Raises:
        InputError: pyarrow is missing.
    """
    _check_pyarrow(place)
    try:
        groups = _looked_at(place, column, key_column)
    except InputError as error:
        yield Broken(place, str(error).removeprefix(f"{place}: "))
    except Exception as error:  # pyarrow and storage raise almost anything
        yield Broken(place, f"cannot be read: {reason_of(error)}")
    else:
        yield from groups


def check(place: str, column: str, key_column: str | None) -> None:
    """Raise if a file that can be read lacks a column.

    Raises:
        InputError: a column is missing, or pyarrow is.
    """
    _check_pyarrow(place)
    try:
        _looked_at(place, column, key_column)
    except InputError:
        raise
    except Exception:  # a damaged file becomes a row with the reason, later
        return


def _check_pyarrow(place: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(f"{place}: reading Parquet needs pyarrow; pip install 'sar-clip[bulk]'") from None


def _looked_at(place: str, column: str, key_column: str | None) -> list[RowGroup]:
    """Return the row groups of a file."""
    size = size_of(place)  # reading a pipe might never end
    with open_binary(place) as stream:
        footer = read_footer(stream, size)
        if len(footer) > _MOST_GROUPS:
            raise ValueError(f"it has {len(footer)} row groups, at most {_MOST_GROUPS}")
        file = _opened(stream)
        schema = file.schema_arrow
        _check_columns(place, schema, column, key_column)
        images = chunks(footer, _path(schema, column))
        keys = chunks(footer, _path(schema, key_column)) if key_column is not None else [None] * len(images)
        for where in (images, keys):
            _check_apart([chunk for chunk in where if chunk is not None], size)
        counts = [file.metadata.row_group(group).num_rows for group in range(len(images))]
        firsts = itertools.accumulate(counts, initial=0)
        numbered = enumerate(zip(firsts, counts, images, keys, strict=False))
        return [
            RowGroup(place, size, group, first, rows, column, key_column, chunk, key)
            for group, (first, rows, chunk, key) in numbered
        ]


def _check_columns(place: str, schema: Any, column: str, key_column: str | None) -> None:
    for needed in (column, key_column):
        if needed is not None and needed not in schema.names:
            has = ", ".join(schema.names)
            raise InputError(f"{place}: no column {needed!r}; it has {has} (--column, --key-column)")
    if not _holds_bytes(kind := schema.field(column).type):
        raise InputError(f"{place}: column {column!r} is {kind}; expected the bytes of images (--column)")
    if key_column is not None and not _is_plain(kind := schema.field(key_column).type):
        raise InputError(f"{place}: column {key_column!r} is {kind}; expected text or numbers (--key-column)")


def _path(schema: Any, column: str) -> str:
    """Return the path of the column in the file that holds the values."""
    return f"{column}.bytes" if _is_struct(schema.field(column).type) else column


def _check_apart(found: list[ColumnChunk], size: int) -> None:
    """Raise if a byte of the file belongs to more than one row group.

    Raises:
        ValueError: one does.
    """
    end = 0
    for chunk in sorted(found, key=lambda chunk: (chunk.start, chunk.end)):
        if chunk.start < end or chunk.end < chunk.start:
            raise ValueError("its row groups overlap")
        end = chunk.end
    if end > size:
        raise ValueError("its row groups are longer than the file")


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind))


def _is_dictionary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_dictionary(kind))


def _is_plain(kind: Any) -> bool:
    """Return whether values of this type are small, or can be measured before they are copied."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return not types.is_nested(kind) and not (types.is_fixed_size_binary(kind) and kind.byte_width > MOST_BYTES)


def _holds_bytes(kind: Any) -> bool:
    """Return whether a column of this type may hold bytes; a column of nulls alone has the null type."""
    from pyarrow import types

    if types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
    if types.is_dictionary(kind):
        kind = kind.value_type
    known = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view, types.is_null)
    return _is_plain(kind) and any(is_it(kind) for is_it in known)


def _opened(stream: Any) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=2**20)  # pages as they are needed


def _content(value: Any) -> bytes | Flaw:
    if (size := _size(value)) > MOST_BYTES:
        return Flaw("size", f"too large: {size} bytes, at most {MOST_BYTES}")
    content = value.as_py()
    if not isinstance(content, bytes):
        return Flaw("unreadable", "cannot be read: the row has no bytes")
    return content
