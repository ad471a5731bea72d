"""Inputs of a bulk run, and those that tars (as webdataset writes them) and Parquet files hold.

Parquet files have a column of bytes, or of Hugging Face's ``{bytes, path}``. Nothing is unpacked to disk.
"""

from __future__ import annotations

import itertools
import os
import re
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import IO, Any, Literal, NamedTuple

from sar_infer.bulk.locations import open_binary
from sar_infer.errors import InputError, install
from sar_infer.images.formats import has_image_suffix

TAR = ".tar"
_ROWS_AT_ONCE = 16
MOST_BYTES = 100 * 2**20
"""The largest encoded image in bytes; a larger one is set aside unread."""
FlawKind = Literal["format", "size", "unreadable", "source", "crash", "timeout"]
"""The kinds of ``ImageError``, and: ``source`` = what holds the images is damaged or out of reach; ``crash`` = the
image killed a process; ``timeout`` = a process was ended because the image took too long."""
OUTAGES = ("source", "crash", "timeout")
"""Kinds that may pass: ``--resume`` tries these inputs again."""
_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})")


class Flaw(NamedTuple):
    """Why there is no answer for an input."""

    kind: FlawKind
    reason: str


class Item(NamedTuple):
    """One input: the key of its row, and a path, a URL, encoded bytes, or why there is nothing to decode."""

    key: str
    source: str | bytes | Flaw


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a name as a key: bytes that are not UTF-8 become ``\xff``, so that any program can read the row.

    A name that has these characters itself gets ``\x5cxff``, so that two files never have one key.
    """
    name = _LOOKS_ESCAPED.sub(r"\\x5c", os.fspath(name))
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def tar_items(location: str) -> Iterator[Item]:
    """Yield the members of an uncompressed tar that have the suffix of an image; keys are ``SHARD/MEMBER``.

    Args:
        location: Path or URL.

    Raises:
        ValueError: the tar is damaged: ``tarfile`` takes a damaged header for its end.
        Exception: it is missing or out of reach; every storage has errors of its own.
    """
    with open_binary(location) as stream:
        archive = tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        at = -1
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # which would hold the headers of all
            if archive.offset <= at:  # a negative size
                raise ValueError(f"damaged at byte {at}")
            at = archive.offset
            name = PurePosixPath(member.name).name
            if member.isdir() or not has_image_suffix(name) or name.startswith("."):
                continue
            content: bytes | Flaw = Flaw("unreadable", "cannot be read: a link or a device in the shard, not a file")
            if member.isreg() and member.size > MOST_BYTES:
                content = _too_large(member.size)
            elif member.isreg():
                try:
                    content = archive.extractfile(member).read()  # type: ignore[union-attr] # None only for links
                except tarfile.ReadError:
                    content = Flaw("unreadable", "cannot be read: the shard ends inside it")
            yield Item(f"{printable(location)}/{printable(member.name)}", content)
        at = archive.offset
        stream.seek(at)
        block = stream.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            raise ValueError("it ends without the mark of an end, so something may be missing")
        if any(block):
            raise ValueError(f"damaged at byte {at}")
        if not at:
            raise ValueError("an archive of nothing")
        while block := stream.read(2**20):
            if block.count(0) < len(block):
                raise ValueError(f"more follows the mark of an end at byte {at}: a hole, or a second archive")


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
        raise InputError(f"{location}: reading Parquet needs pyarrow: {install('bulk')}")
    from pyarrow import types

    with open_binary(location) as stream:
        file = _opened(stream)
        schema = file.schema_arrow
        for name in (column, key_column):
            if name is not None and name not in schema.names:
                names = ", ".join(schema.names)
                raise InputError(f"{location}: no column {name!r}; it has {names} (--column, --key-column)")
        stated = kind = schema.field(column).type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        of_bytes = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
        if not any(is_type(kind) for is_type in (*of_bytes, types.is_null)):  # null: a column of only nulls
            raise InputError(f"{location}: column {column!r} is {stated}; expected the bytes of images (--column)")
        if key_column is not None and types.is_nested(kind := schema.field(key_column).type):
            raise InputError(f"{location}: column {key_column!r} is {kind}; expected text or numbers (--key-column)")
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    firsts = itertools.accumulate(counts, initial=0)
    return [(group, first, rows) for group, (first, rows) in enumerate(zip(firsts, counts, strict=False))]


def parquet_items(
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
    from pyarrow import types

    number = 0
    with open_binary(location) as stream:
        file = _opened(stream)
        is_struct = types.is_struct(file.schema_arrow.field(column).type)
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
        return _too_large(buffer.size)
    content: bytes = buffer.to_pybytes()
    return content


def _too_large(size: int) -> Flaw:
    return Flaw("size", f"too large: {size} bytes, at most {MOST_BYTES}")


def _text(key: Any) -> str:
    """Return a key as text; strings too may hold bytes that are not UTF-8, since not all writers look."""
    buffer = _buffer(key)
    return str(key.as_py()) if buffer is None else printable(os.fsdecode(buffer.to_pybytes()))
