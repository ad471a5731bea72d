"""Parquet files with the bytes of images: a column of bytes, or of Hugging Face's ``{bytes, path}``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import IO, Any

from sar_infer.bulk.items import MOST_BYTES, Flaw, Item, printable
from sar_infer.bulk.locations import open_binary
from sar_infer.errors import InputError

_ROWS_AT_ONCE = 16


def row_groups(location: str, column: str, key_column: str | None) -> list[tuple[int, int, int]]:
    """Return number, first row and count of rows of each row group of a file.

    Args:
        location: Path or URL of the file.
        column: Column of the images.
        key_column: Column of the keys, if there is one.

    Raises:
        InputError: pyarrow is missing, or a column is missing or of another type.
        Exception: the file is damaged or out of reach; pyarrow and storage raise almost anything.
    """
    if find_spec("pyarrow") is None:
        raise InputError(f"{location}: reading Parquet needs pyarrow; pip install '.[bulk]'")
    from pyarrow import types

    with open_binary(location) as stream:
        file = _opened(stream)
        schema = file.schema_arrow
        for name in (column, key_column):
            if name is not None and name not in schema.names:
                names = ", ".join(schema.names)
                raise InputError(f"{location}: no column {name!r}; it has {names} (--column, --key-column)")
        if not _holds_bytes(kind := schema.field(column).type):
            raise InputError(f"{location}: column {column!r} is {kind}; expected the bytes of images (--column)")
        if key_column is not None and types.is_nested(kind := schema.field(key_column).type):
            raise InputError(f"{location}: column {key_column!r} is {kind}; expected text or numbers (--key-column)")
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    firsts = itertools.accumulate(counts, initial=0)
    return [(group, first, rows) for group, (first, rows) in enumerate(zip(firsts, counts, strict=False))]


def rows(
    location: str, group: int | None, first: int, count: int | None, column: str, key_column: str | None
) -> Iterator[Item]:
    """Yield an item for each row of a row group, or of the whole file.

    Args:
        location: Path or URL of the file.
        group: Number of the row group; None = all.
        first: Number of its first row in the file.
        count: How many rows it should have; None = any number.
        column: Column of the images.
        key_column: Column of the keys; a row without one has the key ``FILE#ROW``.

    Raises:
        Exception: the file is damaged, out of reach, or lacks a column; pyarrow and storage raise almost anything.
    """
    number = 0
    with open_binary(location) as stream:
        file = _opened(stream)
        is_struct = _is_struct(file.schema_arrow.field(column).type)
        columns = [f"{column}.bytes" if is_struct else column, *([] if key_column is None else [key_column])]
        groups = range(file.num_row_groups) if group is None else [group]
        every = (file.iter_batches(_ROWS_AT_ONCE, [one], columns) for one in groups)
        for batch in itertools.chain.from_iterable(every):
            images = batch.column(column)
            images = images.flatten()[0] if is_struct else images
            keys = itertools.repeat(None) if key_column is None else batch.column(key_column)
            for image, key in zip(images, keys, strict=False):
                text = _text(key) if key is not None and key.is_valid else f"{printable(location)}#{first + number}"
                yield Item(text, _content(image))
                number += 1
    if count is not None and number != count:
        raise ValueError(f"it has {count - number} rows less than its footer says")


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
