from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from support.many import small_png, write_parquet

from sar_infer.bulk.chunks import Chunk
from sar_infer.bulk.containers import Flaw, Item, row_groups
from sar_infer.errors import InputError


def items_of(path: Path, column: str = "image", key_column: str | None = None) -> list[Item]:
    groups = [
        Chunk(number, (str(path),), *group) for number, group in enumerate(row_groups(str(path), column, key_column))
    ]
    items = [item for chunk in groups for item in chunk.items(column, key_column)]
    (_, *whole) = [None, *Chunk(0, (str(path),)).items(column, key_column)]
    assert [item.key for item in whole] == [item.key for item in items]
    return items


@pytest.mark.parametrize("order", [("image", "name"), ("name", "image")])
def test_keys_of_a_column(tmp_path: Path, order: tuple[str, str]) -> None:
    columns = {"image": [b"1", b"2", b"3"], "name": ["x", None, "é"]}
    path = write_parquet(tmp_path / "t.parquet", {name: columns[name] for name in order})
    assert items_of(path, key_column="name") == [Item("x", b"1"), Item(f"{path}#1", b"2"), Item("é", b"3")]
    numbers = write_parquet(tmp_path / "n.parquet", {"image": [b"1"], "id": [7]})
    assert items_of(numbers, key_column="id") == [Item("7", b"1")]
    raw = write_parquet(tmp_path / "raw.parquet", {"image": [b"1", b"2"], "id": ["é".encode(), b"\xff"]})
    assert items_of(raw, key_column="id") == [
        Item("é", b"1"),
        Item(r"\xff", b"2"),
    ]  # text of writers that do not say so
    text = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
    wrong = write_parquet(tmp_path / "wrong.parquet", {"image": [b"1", b"2", b"3"], "id": text})
    assert [item.key for item in items_of(wrong, key_column="id")] == ["a", r"\xff", "c"]


def test_images_as_hugging_face_stores_them(tmp_path: Path) -> None:
    rows = [{"bytes": b"1", "path": "a.jpg"}, {"bytes": None, "path": "/etc/passwd"}, None]
    path = write_parquet(tmp_path / "t.parquet", {"label": [0, 1, 2], "image": rows})
    first, *rest = items_of(path)
    assert first == Item(f"{path}#0", b"1")
    assert [item.source for item in rest] == [Flaw("unreadable", "cannot be read: the row has no bytes")] * 2


def test_other_columns_and_sizes_are_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.bulk.containers.MOST_BYTES", 3)
    path = write_parquet(tmp_path / "t.parquet", {"image": [b"123", b"1234"], "text": ["x", "y"], "none": [None, None]})
    assert [item.source for item in items_of(path)] == [b"123", Flaw("size", "too large: 4 bytes, at most 3")]
    with pytest.raises(InputError, match=r"column 'text' is string; expected the bytes of images \(--column\)"):
        items_of(path, "text")
    assert {item.source.reason for item in items_of(path, "none")} == {"cannot be read: the row has no bytes"}


def test_large_binary_and_empty_groups(tmp_path: Path) -> None:
    one = pyarrow.array([b"1"], pyarrow.binary())
    for array in (one.cast(pyarrow.large_binary()), one.cast(pyarrow.binary(1)), one.dictionary_encode()):
        path = write_parquet(tmp_path / "t.parquet", {"image": array})
        assert [item.source for item in items_of(path)] == [b"1"]
    assert items_of(write_parquet(tmp_path / "e.parquet", {"image": pyarrow.array([], pyarrow.binary())})) == []


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": [b"1"], "list": [["a"]]})
    for column, key_column, message in (
        ("jpg", None, r"no column 'jpg'; it has image, list \(--column, --key-column\)"),
        ("image", "key", "no column 'key'"),
        ("list", None, "column 'list' is list.*; expected the bytes of images"),
        ("image", "list", "column 'list' is list.*; expected text or numbers"),
    ):
        with pytest.raises(InputError, match=message):
            row_groups(str(path), column, key_column)


def test_a_long_row_group_is_never_held(tmp_path: Path) -> None:
    """Neither by pyarrow nor as items; its pages are, one at a time."""
    rows = [random.Random(number).randbytes(2**18) for number in range(400)]
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), path, use_dictionary=False, write_batch_size=4)
    before, most = pyarrow.total_allocated_bytes(), 0
    for item, row in zip(items_of_one(path), rows, strict=True):
        assert item.source == row
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert most < 30 * 2**20  # the row group has 100 MiB


def items_of_one(path: Path) -> Iterator[Item]:
    (group,) = row_groups(str(path), "image", None)
    return Chunk(0, (str(path),), *group).items("image", None)


def test_a_damaged_group_is_one_more_item(tmp_path: Path) -> None:
    images = [small_png(n) for n in range(8)]
    path = write_parquet(tmp_path / "t.parquet", {"image": images}, rows_of_group=4)
    chunk = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset : chunk.data_page_offset + 30] = b"\xff" * 30
    path.write_bytes(data)
    items = items_of(path)
    assert items[:4] == [Item(f"{path}#{row}", images[row]) for row in range(4)]
    assert items[-1].key == str(path)
    assert items[-1].source.kind == "source"


def test_rows_that_are_missing_are_told(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": [b"1", b"2"]})
    *rows, last = Chunk(0, (str(path),), 0, 0, 3).items("image", None)
    assert [item.source for item in rows] == [b"1", b"2"]
    assert last == Item(str(path), Flaw("source", "row 2 on cannot be read: it has 1 rows less than its footer says"))
