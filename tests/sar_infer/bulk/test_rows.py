from __future__ import annotations

import contextlib
import functools
import json
import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from support.folders import listing
from support.many import read_rows

from sar_infer.bulk.containers import Flaw
from sar_infer.bulk.rows import METADATA, Columns, JsonLines, Parquet, answered, flawed, names
from sar_infer.bulk.store import LocalFolder, write_text
from sar_infer.errors import WriteError
from sar_infer.results import Explanation, ImageResult, Prediction

RESULT = ImageResult(
    "image[0]",
    (Prediction("réd", 0.75, 3.5, 0.25, "bank"), Prediction("owl", 0.25, 2.5, 0.125, "extended")),
    unknown=0.5,
    reason="score 0.750 is below 0.900",
    label_set=("réd",),
    explanation=Explanation(0.5, "owl", (("owl", 0.5),)),
)
FLAW = Flaw("size", "too large")
FULL = Columns(label_set=True, explained=True, embedding="float32", width=3)
VECTOR = np.array([0.1, -0.2, 0.3], dtype=np.float32)


def both(columns: Columns) -> list[dict]:
    return [answered('a "b".png', RESULT, VECTOR, columns), flawed("c\n.png", FLAW, columns)]


# ---------------------------------------------------------------------------------------------------------- the forms
HALF = Columns(embedding="float16", width=3)


@pytest.mark.parametrize("columns", [Columns(), FULL, HALF], ids=["plain", "full", "half"])
def test_both_forms_hold_the_same(tmp_path: Path, columns: Columns) -> None:
    rows = []
    for form in (JsonLines(columns), Parquet(columns)):
        path = tmp_path / f"rows{form.suffix}"
        form.write(path, [form.pack(both(columns)), form.pack([]), form.pack(both(columns))])
        rows.append(read_rows(path))
        with path.open("rb") as stream:
            flaw = {"key": "c\n.png", "error_kind": "size", "error": "too large"}
            assert form.flaws(stream) == (4, [flaw, flaw])
    assert rows[0] == rows[1]
    good, bad = rows[0][:2]
    assert list(good) == list(bad) == names(columns)
    assert (good["label"], good["labels"], good["scores"]) == (
        "réd",
        ["réd", "owl"],
        [0.75, 0.25],
    )
    assert {name for name, value in bad.items() if value is not None} == {"key", "error", "error_kind"}
    if columns.embedding:
        assert np.array_equal(good["embedding"], VECTOR.astype(columns.embedding))
    if columns.explained:
        assert (good["margin"], good["runner_up"], good["label_set"]) == (0.5, "owl", ["réd"])


def test_parquet_says_what_made_it_in_row_groups_of_a_useful_size(tmp_path: Path) -> None:
    form = Parquet(HALF, {"bundle": "abc"})
    form.write(tmp_path / "p.parquet", (form.pack(both(HALF) * 50) for _ in range(100)))
    file = pyarrow.parquet.ParquetFile(tmp_path / "p.parquet")
    assert json.loads(file.schema_arrow.metadata[METADATA]) == {"bundle": "abc"}
    assert file.schema_arrow.field("score").type == pyarrow.float32()
    assert file.schema_arrow.field("embedding").type == pyarrow.list_(pyarrow.float16(), 3)
    assert not file.schema_arrow.field("key").nullable
    assert file.num_row_groups == 3


@pytest.mark.skipif(os.name != "posix", reason="needs its file names")
@pytest.mark.parametrize("name", ["run:1", os.fsdecode(b"\xff")])
def test_names_that_pyarrow_does_not_take_as_paths(tmp_path: Path, name: str) -> None:
    form, part_path, whole = Parquet(Columns()), Path(name), Path(f"{name}.whole")
    with contextlib.chdir(tmp_path):
        form.write(part_path, [form.pack([flawed("x", FLAW, Columns())])])
        form.merge(whole, [functools.partial(part_path.open, "rb")])
        with whole.open("rb") as stream:
            assert form.flaws(stream)[0] == 1


def test_a_local_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    store = LocalFolder(tmp_path / "new" / "out")
    assert store.names() == set()

    def half(path: Path) -> None:
        path.write_text("half")
        assert store.names() == set()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.put("a", half)
    assert listing(store.folder) == []
    write_text(store, "a", "é")
    with store.open("a") as stream:
        assert (store.names(), stream.read().decode()) == ({"a"}, "é")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/x/a: "):
        write_text(LocalFolder(tmp_path / "file" / "x"), "a", "")
