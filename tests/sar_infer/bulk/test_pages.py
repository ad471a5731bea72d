from __future__ import annotations

import io
import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from support.many import small_png, write_parquet

from sar_infer.bulk.items import Flaw, Item
from sar_infer.bulk.sources import pages, row_groups
from sar_infer.bulk.sources.pages import CheckedPages, ColumnChunk, page_header

MIB = 2**20
ROOT = Path(__file__).parents[3]


def found(path: Path, key_column: str | None = None) -> list[Item]:
    units = row_groups.row_groups(str(path), "image", key_column)
    return [item for unit in units for item in unit.items()]


def repeated(value: bytes, rows: int) -> pyarrow.DictionaryArray:
    """One value, stored once, in every row."""
    values = pyarrow.array([value], pyarrow.binary())
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), values)


def write(path: Path, column: pyarrow.Array, **settings: object) -> Path:
    pyarrow.parquet.write_table(pyarrow.table({"image": column}), path, compression="zstd", **settings)
    return path


def with_groups_twice(path: Path) -> Path:
    """Name every row group of a file twice in its footer."""
    footer = pyarrow.parquet.read_metadata(path)
    footer.append_row_groups(pyarrow.parquet.read_metadata(path))
    footer.write_metadata_file(path.with_name("footer"))
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[-8:-4])
    path.write_bytes(data[: -8 - length] + path.with_name("footer").read_bytes()[4:])
    return path


# -------------------------------------------------------------------------------------------- rows that are too many
@pytest.mark.parametrize("kind", ["dictionary", "bytes", "struct"])
def test_one_value_a_thousand_times_ends_with_a_row(tmp_path: Path, kind: str) -> None:
    column = repeated(bytes(20 * MIB), 1000)
    if kind == "struct":
        column = pyarrow.StructArray.from_arrays([column], ["bytes"])
    path = write(tmp_path / "bomb.parquet", column, store_schema=kind == "dictionary")
    assert path.stat().st_size < 4096
    *rows, last = found(path)
    assert [item.source for item in rows] == [bytes(20 * MIB)] * len(rows)
    assert 2 <= len(rows) <= 3
    assert last.key == str(path)
    assert isinstance(last.source, Flaw)
    told = rf"row {len(rows)} on cannot be read: its rows become more than \d+ bytes, out of all proportion to the file"
    assert re.fullmatch(told, last.source.reason)


def test_rows_of_nothing_are_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "_LEAST", MIB)
    path = write(tmp_path / "nulls.parquet", pyarrow.nulls(100_000, pyarrow.binary()))
    assert path.stat().st_size < 4096
    *rows, last = found(path)
    assert len(rows) == 64
    assert isinstance(last.source, Flaw)
    assert last.source.reason.startswith("row 64 on cannot be read")


def test_row_groups_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = with_groups_twice(write_parquet(tmp_path / "t.parquet", {"image": [small_png(1), small_png(2)]}))
    assert found(path) == [Item(str(path), Flaw("source", "cannot be read: its row groups overlap"))]


def test_a_column_of_wide_nothing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", pyarrow.nulls(0, pyarrow.binary(200 * MIB)))
    (item,) = found(path)
    assert isinstance(item.source, Flaw)
    assert item.source.reason.startswith("column 'image' is fixed_size_binary[209715200]; expected the bytes of images")


def test_keys_have_limits_too(tmp_path: Path) -> None:
    keys = ["k", "x" * 2**16, "x" * (2**16 + 1)]
    path = write_parquet(tmp_path / "t.parquet", {"image": [b"1", b"2", b"3"], "key": keys})
    flaw = Flaw("source", "its key has 65537 bytes, at most 65536")
    assert found(path, "key") == [Item("k", b"1"), Item("x" * 2**16, b"2"), Item(f"{path}#2", flaw)]
    path = write_parquet(tmp_path / "t.parquet", {"image": [b"1"], "key": [["a", "list"]]})
    (item,) = found(path, "key")
    assert isinstance(item.source, Flaw)
    assert "expected text or numbers (--key-column)" in item.source.reason
    many = pyarrow.array([0] * 1000, pyarrow.int32())
    path = tmp_path / "keys.parquet"
    keys = pyarrow.DictionaryArray.from_arrays(many, pyarrow.array(["x" * 8 * MIB]))
    table = pyarrow.table({"image": [b"1"] * 1000, "key": keys})
    pyarrow.parquet.write_table(table, path, compression="zstd", store_schema=False)
    *rows, last = found(path, "key")
    assert len(rows) < 10
    assert isinstance(last.source, Flaw)
    assert "out of all proportion" in last.source.reason


def test_many_honest_rows_are_all_read(tmp_path: Path) -> None:
    chance = random.Random(1)
    rows = [chance.randbytes(chance.randrange(3000)) for _ in range(3000)]
    for settings in ({}, {"use_dictionary": False, "data_page_size": 4096}, {"data_page_version": "2.0"}):
        for column in (pyarrow.array(rows), pyarrow.array(rows).dictionary_encode()):
            path = write(tmp_path / "t.parquet", column, row_group_size=1000, **settings)
            assert found(path) == [Item(f"{path}#{row}", data) for row, data in enumerate(rows)]


# --------------------------------------------------------------------------------------------------------------- pages
def test_a_page_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.parquet", pyarrow.array([bytes(MIB)] * 100), use_dictionary=False)
    assert path.stat().st_size < 64 * 1024
    (item,) = found(path)
    assert isinstance(item.source, Flaw)
    assert re.fullmatch(
        r"row 0 on cannot be read: a page of \d+ bytes unpacks to \d+, more than 32 times as many", item.source.reason
    )


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_headers_lead_from_page_to_page_to_the_end_of_the_column(
    tmp_path: Path, version: str, compression: str
) -> None:
    rows = [str(number).encode() * 9 if number % 7 else None for number in range(5000)]
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"image": rows, "number": list(range(5000))}),
        path,
        compression=compression,
        data_page_version=version,
        data_page_size=2048,
        dictionary_pagesize_limit=4096,
        write_page_checksum=True,
    )
    data, footer = path.read_bytes(), pyarrow.parquet.read_metadata(path).row_group(0)
    for column in map(footer.column, range(2)):
        at = column.dictionary_page_offset
        end, unpacked, count = at + column.total_compressed_size, 0, 0
        while at < end:
            length, whole, packed = page_header(data, at)
            at += length + packed
            unpacked += length + whole
            count += 1
        assert (at, unpacked) == (end, column.total_uncompressed_size)
        assert count > 3


def test_a_header_is_followed_wherever_reads_cut_it(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": [small_png(number) for number in range(8)]}, rows_of_group=8)
    column = pyarrow.parquet.read_metadata(path).row_group(0).column(0)
    start = column.dictionary_page_offset
    chunk = start, start + column.total_compressed_size
    whole = path.read_bytes()[slice(*chunk)]
    for size in (1, 2, 7, 31, 1000):
        stream = CheckedPages(io.BytesIO(path.read_bytes()))
        stream.watch(ColumnChunk(*chunk))
        stream.seek(start)
        assert b"".join(iter(lambda: stream.read(min(size, chunk[1] - stream.tell())), b"")) == whole  # noqa: B023


def test_nothing_is_read_that_was_not_judged(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": [small_png(number) for number in range(8)]}, rows_of_group=8)
    column = pyarrow.parquet.read_metadata(path).row_group(0).column(0)
    start, end = column.dictionary_page_offset, column.dictionary_page_offset + column.total_compressed_size
    for at, size in ((start - 1, 10), (end - 10, 5), (start, end - start + 1)):
        stream = CheckedPages(io.BytesIO(path.read_bytes()))
        stream.watch(ColumnChunk(start, end))
        stream.seek(at)
        with pytest.raises(ValueError, match="footer"):
            stream.read(size)


def test_damaged_headers_are_refused_at_once() -> None:
    chance = random.Random(2)
    for _ in range(3000):
        data = chance.randbytes(chance.randrange(1, 60))
        try:
            length, unpacked, packed = page_header(data)
        except (IndexError, ValueError):
            continue
        assert 0 < length <= len(data)
        assert min(unpacked, packed) >= 0
    for data, message in (
        (b"\x15\x00\x15\x01\x15\x02\x00", "damaged"),  # a negative size
        (b"\x1c" * 100 + b"\x00" * 200, "damaged"),  # structs in structs
        (b"\x15" + b"\xff" * 20, "damaged"),  # a number without an end
        (b"\x19\xfc\xff\xff\xff\xff\x0f", "entries"),  # structs in a list
        (b"\x15\x04\x15\x02\x15\x02\x4c\x15\xfe\xff\xff\xff\x0f\x00\x00", "damaged"),  # 2**31 values in a byte
    ):
        with pytest.raises(ValueError, match=message):
            page_header(data)


def test_a_field_number_that_wraps_is_the_one_that_pyarrow_takes_it_for() -> None:
    assert page_header(b"\x15\x00\x15\x02\x15\x02\x00") == (7, 1, 1)
    far = b"\x05" + bytes([0x82, 0x80, 0x08])  # zigzag of 65,537 is 131,074, and then one more
    data = b"\x15\x00\x15\x02\x15\x02" + far + b"\x00" + b"\x15\xfe\x01" + b"\x00"
    assert page_header(data) == (len(data), 127, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_a_file_of_three_kilobytes_takes_little_memory(tmp_path: Path) -> None:
    """3,000 rows of one value of 90 MiB: 264 GiB, were they ever held."""
    path = write(tmp_path / "bomb.parquet", repeated(bytes(90 * MIB), 3000))
    good = write_parquet(tmp_path / "good.parquet", {"image": [small_png(1)]})
    program = """
import resource, sys
from sar_infer.bulk.sources.row_groups import row_groups
for path in sys.argv[1:]:
    items = [item for unit in row_groups(path, "image", None) for item in unit.items()]
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, len(items), items[-1].source.__class__.__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, good, path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (before, *_), (after, count, kind) = (line.split() for line in done.stdout.splitlines())
    assert (count, kind) == ("1", "Flaw")
    assert int(after) - int(before) < 64


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def entries(kind: int, items: list[bytes]) -> bytes:
    """A list of Thrift's compact protocol."""
    return bytes([0xF0 | kind]) + varint(len(items)) + b"".join(items)


SILENT = b"\x26\x00\x00"
"""A column of a row group that says nothing of itself."""
ENCRYPTED = b"\x26\x00\x6c\x2c\x19\x18\x01x\x00\x00\x00"
"""One that is encrypted with a key of its own."""


def with_footer(path: Path, groups: list[int], named: int = 0, column: bytes = SILENT) -> Path:
    """A file of nothing but a footer: row groups with so many columns, and empty names and values."""
    root = b"\x48\x04root\x15\x02\x00"
    image = b"\x15\x0c\x25\x02\x18\x05image\x00"
    parts = [b"\x19" + entries(12, [column] * columns) + b"\x16\x00\x16\x00\x00" for columns in groups]
    names = b"\x19" + entries(12, [b"\x18\x00\x00"] * named) if named else b""
    footer = b"\x15\x04\x19" + entries(12, [root, image]) + b"\x16\x00\x19" + entries(12, parts) + names + b"\x00"
    path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
    return path


def test_a_footer_of_a_million_entries_is_not_unpacked(tmp_path: Path) -> None:
    """Twelve megabytes of the first become more than ten gigabytes in pyarrow."""
    for groups, named in (([300_000], 0), ([1] * 150_000, 0), ([1], 300_000)):
        path = with_footer(tmp_path / "bomb.parquet", groups, named)
        assert path.stat().st_size < 2 * MIB
        assert found(path) == [Item(str(path), Flaw("source", "cannot be read: its footer has too many entries"))]
    path = with_footer(tmp_path / "bomb.parquet", [1] * 10_001)
    (item,) = found(path)
    assert item.source == Flaw("source", "cannot be read: it has 10001 row groups, at most 10000")
    path.write_bytes(b"PAR1" + bytes(2**24 + 1) + struct.pack("<I", 2**24 + 1) + b"PAR1")
    (item,) = found(path)
    assert item.source == Flaw("source", "cannot be read: its footer has 16777217 bytes, at most 16777216")
    whole = with_footer(path, [1] * 9000).read_bytes()
    path.write_bytes(b"PAR1" + whole[5000:])
    assert [item.source.kind for item in found(path)] == ["source"]


@pytest.mark.parametrize("column", [SILENT, ENCRYPTED])
@pytest.mark.parametrize("groups", [[0], [1], [3], [1, 0]])
def test_row_groups_at_which_pyarrow_aborts_are_refused(tmp_path: Path, groups: list[int], column: bytes) -> None:
    """It ends the process when it is asked for a column without a schema, or for one that is encrypted."""
    path = with_footer(tmp_path / "t.parquet", groups, column=column)
    flaw = Flaw("source", "cannot be read: a row group has no column 'image', or it is encrypted")
    assert found(path) == [Item(str(path), flaw)]


def test_a_long_footer_of_an_honest_file_is_read(tmp_path: Path) -> None:
    columns = {f"column {number}": list(range(400)) for number in range(20)}
    rows = [small_png(number) for number in range(400)]
    table = pyarrow.table({"image": rows, **columns}).replace_schema_metadata({"long": "x" * 100_000})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2, write_page_index=True)
    data = (tmp_path / "t.parquet").read_bytes()
    assert struct.unpack("<I", data[-8:-4])[0] > 500_000
    assert [item.source for item in found(tmp_path / "t.parquet")] == rows


def test_limits_are_generous_to_images() -> None:
    assert pages.allowed(0) == 64 * MIB
    assert pages.allowed(100 * MIB) > 3 * 2**30
