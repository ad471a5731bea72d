"""Parquet files with the bytes of images: a column of bytes, or of Hugging Face's ``{bytes, path}``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any

from sar_infer.bulk.items import MOST_BYTES, Flaw, Item, printable
from sar_infer.bulk.locations import open_binary, size_of
from sar_infer.errors import InputError, reason_of

SUFFIX = ".parquet"
_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class RowGroup:
    """One row group of a Parquet file; the file is identified by its location and size.

    Attributes:
        location: Path or URL of the file.
        size: Size of the file in bytes.
        group: Number of the row group, from 0.
        first: Number of its first row in the file, from 0.
        rows: How many rows it has.
        column: Column of the images.
        key_column: Column of the keys; without one a key is ``FILE#ROW``.
    """

    location: str
    size: int
    group: int
    first: int
    rows: int
    column: str
    key_column: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """Return kind, file, row group and columns."""
        return {
            "kind": "RowGroup",
            "place": self.location,
            "size": self.size,
            "group": self.group,
            "first": self.first,
            "rows": self.rows,
            "column": self.column,
            "key_column": self.key_column,
        }

    @property
    def count(self) -> int:
        """Return the number of rows, each of which is an input."""
        return self.rows

    def items(self) -> Iterator[Item]:
        """Yield an item for each row; if the row group is damaged, ``remainder`` is the last."""
        number = 0
        try:
            with open_binary(self.location) as stream:
                for image, key in self._rows(stream):
                    yield self._item(number, image, key)
                    number += 1
            if number != self.rows:
                raise ValueError(f"it has {self.rows - number} rows less than its footer says")
        except Exception as error:  # pyarrow and storage raise almost anything
            yield self.remainder(number, reason_of(error))

    def remainder(self, number: int, reason: str) -> Item:
        """Return one input, with key ``FILE``, for all after the first ``number``, which cannot be read."""
        return Item(printable(self.location), Flaw("source", f"row {self.first + number} on cannot be read: {reason}"))

    def _rows(self, stream: IO[bytes]) -> Iterator[tuple[Any, Any]]:
        """Yield the image and the key of each row as Arrow scalars, the key None without a column of keys."""
        file = _opened(stream)
        is_struct = _is_struct(file.schema_arrow.field(self.column).type)
        columns = [f"{self.column}.bytes" if is_struct else self.column]
        columns += [] if self.key_column is None else [self.key_column]
        for batch in file.iter_batches(_ROWS_AT_ONCE, [self.group], columns):
            images = batch.column(self.column)
            images = images.flatten()[0] if is_struct else images
            keys = itertools.repeat(None) if self.key_column is None else batch.column(self.key_column)
            yield from zip(images, keys, strict=False)

    def _item(self, number: int, image: Any, key: Any) -> Item:
        if key is None or not key.is_valid:
            return Item(f"{printable(self.location)}#{self.first + number}", _content(image))
        return Item(_text(key), _content(image))


def row_groups(location: str, column: str, key_column: str | None) -> list[RowGroup]:
    """Return the row groups of a file.

    Args:
        location: Path or URL of the file.
        column: Column of the images.
        key_column: Column of the keys, if there is one.

    Raises:
        InputError: a column is missing or of another type.
        Exception: the file is damaged or out of reach; pyarrow and storage raise almost anything.
    """
    size = size_of(location)  # reading a pipe might never end
    with open_binary(location) as stream:
        file = _opened(stream)
        _check_columns(location, file.schema_arrow, column, key_column)
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    firsts = itertools.accumulate(counts, initial=0)
    return [
        RowGroup(location, size, group, first, rows, column, key_column)
        for group, (first, rows) in enumerate(zip(firsts, counts, strict=False))
    ]


def check_pyarrow(location: str) -> None:
    """Check that Parquet can be read.

    Raises:
        InputError: pyarrow is missing.
    """
    if find_spec("pyarrow") is None:
        raise InputError(f"{location}: reading Parquet needs pyarrow; pip install 'sar-clip[bulk]'")


def _check_columns(location: str, schema: Any, column: str, key_column: str | None) -> None:
    from pyarrow import types

    for name in (column, key_column):
        if name is not None and name not in schema.names:
            names = ", ".join(schema.names)
            raise InputError(f"{location}: no column {name!r}; it has {names} (--column, --key-column)")
    if not _holds_bytes(kind := schema.field(column).type):
        raise InputError(f"{location}: column {column!r} is {kind}; expected the bytes of images (--column)")
    if key_column is not None and types.is_nested(kind := schema.field(key_column).type):
        raise InputError(f"{location}: column {key_column!r} is {kind}; expected text or numbers (--key-column)")


def _holds_bytes(kind: Any) -> bool:
    """Return whether a column of this type may hold bytes; a column of nulls alone has the null type."""
    from pyarrow import types

    if _is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
    if types.is_dictionary(kind):
        kind = kind.value_type
    bytes_types = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(is_type(kind) for is_type in (*bytes_types, types.is_null))


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind))


def _opened(stream: IO[bytes]) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=2**20)  # pages as they are needed


def _buffer(scalar: Any) -> Any:
    """Return the bytes of a scalar without copying them, None if it has none."""
    scalar = getattr(scalar, "value", scalar) if hasattr(scalar, "dictionary") else scalar
    return scalar.as_buffer() if scalar.is_valid and hasattr(scalar, "as_buffer") else None


def _content(image: Any) -> bytes | Flaw:
    buffer = _buffer(image)
    if buffer is None:
        return Flaw("unreadable", "cannot be read: the row has no bytes")
    if buffer.size > MOST_BYTES:
        return Flaw("size", f"too large: {buffer.size} bytes, at most {MOST_BYTES}")
    content: bytes = buffer.to_pybytes()
    return content


def _text(key: Any) -> str:
    """Return a key as text; strings too may hold bytes that are not UTF-8, since not all writers look."""
    buffer = _buffer(key)
    return str(key.as_py()) if buffer is None else printable(os.fsdecode(buffer.to_pybytes()))
