"""Parquet files with the bytes of images: a column of bytes, or of Hugging Face's ``{bytes, path}``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sar_infer.bulk.items import MOST_BYTES, Broken, Flaw, Item, Unit, printable
from sar_infer.bulk.places import one_line, open_binary
from sar_infer.errors import InputError

SUFFIX = ".parquet"
_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class RowGroup:
    """One row group; the size of the whole file in bytes stands for its content.

    Attributes:
        place: Path or URL of the file.
        size: Of the file.
        group: Which row group, from 0.
        first: Number of its first row in the file, from 0.
        rows: How many it has.
        column: Of the images.
        key_column: Of the keys; without one a key is ``FILE#ROW``.
    """

    place: str
    size: int
    group: int
    first: int
    rows: int
    column: str
    key_column: str | None

    @property
    def count(self) -> int:
        """An input a row."""
        return self.rows

    def items(self) -> Iterator[Item]:
        """One a row; if the file gives out, one more under its own key."""
        row = 0
        try:
            with open_binary(self.place) as stream:
                for batch in _opened(stream).iter_batches(_ROWS_AT_ONCE, [self.group], self._columns()):
                    keys = batch[self.key_column].to_pylist() if self.key_column else [None] * len(batch)
                    for content, key in zip(batch[self.column].to_pylist(), keys, strict=True):
                        yield Item(self._key(row, key), _content(content))
                        row += 1
        except Exception as error:  # pyarrow and storage raise almost anything
            yield Item(
                printable(self.place), Flaw("source", f"row {self.first + row} on cannot be read: {one_line(error)}")
            )

    def _columns(self) -> list[str]:
        return [self.column] + ([self.key_column] if self.key_column else [])

    def _key(self, row: int, value: Any) -> str:
        if value is None:
            return f"{printable(self.place)}#{self.first + row}"
        return printable(os.fsdecode(value) if isinstance(value, bytes) else str(value))


def row_groups(place: str, column: str, key_column: str | None) -> Iterator[Unit]:
    """The row groups of a file, or that it is broken or has no such column.

    Raises:
        InputError: pyarrow is missing.
    """
    _check_pyarrow(place)
    try:
        size, counts = _looked_at(place, column, key_column)
    except InputError as error:
        yield Broken(place, str(error).removeprefix(f"{place}: "))
        return
    except Exception as error:  # pyarrow and storage raise almost anything
        yield Broken(place, f"cannot be read: {one_line(error)}")
        return
    first = 0
    for group, rows in enumerate(counts):
        yield RowGroup(place, size, group, first, rows, column, key_column)
        first += rows


def check(place: str, column: str, key_column: str | None) -> None:
    """See that a file, if it can be read, has the columns.

    Raises:
        InputError: it has not, or pyarrow is missing.
    """
    _check_pyarrow(place)
    try:
        _looked_at(place, column, key_column)
    except InputError:
        raise
    except Exception:  # what is damaged is a row of its own, later
        return


def _check_pyarrow(place: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(f"{place}: reading Parquet needs pyarrow; pip install 'sar-clip[bulk]'") from None


def _looked_at(place: str, column: str, key_column: str | None) -> tuple[int, list[int]]:
    """Bytes of a file, and rows of each group."""
    with open_binary(place) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        file = _opened(stream)
        schema = file.schema_arrow
        for needed in (column, key_column):
            if needed is not None and needed not in schema.names:
                has = ", ".join(schema.names)
                raise InputError(f"{place}: no column {needed!r}; it has {has} (--column, --key-column)")
        if not _holds_bytes(kind := schema.field(column).type):
            raise InputError(f"{place}: column {column!r} is {kind}; expected the bytes of images (--column)")
        return size, [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def _holds_bytes(kind: Any) -> bool:
    """Whether a column of this type may; one of nothing but nulls has no type."""
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    known = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view, types.is_null)
    return any(is_it(kind) for is_it in known)


def _opened(stream: Any) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=2**20)  # pages as they are needed


def _content(value: Any) -> bytes | Flaw:
    if isinstance(value, dict):
        value = value.get("bytes")
    if not isinstance(value, bytes):
        return Flaw(
            "unreadable", f"cannot be read: the row has {'no bytes' if value is None else type(value).__name__}"
        )
    if len(value) > MOST_BYTES:
        return Flaw("size", f"too large: {len(value)} bytes, at most {MOST_BYTES}")
    return value
