from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from support.folders import listing
from support.many import read_rows

from sar_infer.bulk.items import Broken, Flaw, Piece
from sar_infer.bulk.outputs.job import (
    JOB,
    REJECTED,
    SUCCESS,
    WHOLE,
    BulkJob,
    PieceListing,
    Shard,
    part_number,
)
from sar_infer.bulk.outputs.rows import METADATA, Columns, JsonLines, Parquet, answered, flawed, names
from sar_infer.bulk.outputs.store import LocalFolder, read_text, write_text
from sar_infer.bulk.sources.listing import Paths
from sar_infer.bulk.sources.row_groups import RowGroup
from sar_infer.bulk.sources.tars import TarShard
from sar_infer.errors import InputError, WriteError
from sar_infer.results import Explanation, ImageResult, Prediction

RESULT = ImageResult(
    "image[0]",
    (Prediction("réd", 0.75, 3.5, 0.25, "bank", "held-out"), Prediction("owl", 0.25, 2.5, 0.125, "extended")),
    unknown=True,
    reason="score 0.750 is below 0.900",
    label_set=("réd",),
    explanation=Explanation(0.5, "owl", -4.5, (("owl", 0.5),)),
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
    for form in (JsonLines(), Parquet(columns)):
        path = tmp_path / f"rows{form.suffix}"
        form.write(path, [form.pack(both(columns)), form.pack([]), form.pack(both(columns))])
        rows.append(read_rows(path))
        with path.open("rb") as stream:
            flaw = {"key": "c\n.png", "error_kind": "size", "error": "too large"}
            assert form.flaws(stream) == (4, [flaw, flaw])
    assert rows[0] == rows[1]
    good, bad = rows[0][:2]
    assert list(good) == list(bad) == names(columns)
    assert (good["label"], good["labels"], good["scores"], good["calibration"]) == (
        "réd",
        ["réd", "owl"],
        [0.75, 0.25],
        "held-out",
    )
    assert {name for name, value in bad.items() if value is not None} == {"key", "error", "error_kind"}
    if columns.embedding:
        assert np.array_equal(good["embedding"], VECTOR.astype(columns.embedding))
    if columns.explained:
        assert (good["margin"], good["runner_up"], good["energy"], good["label_set"]) == (0.5, "owl", -4.5, ["réd"])


def test_parquet_says_what_made_it_in_row_groups_of_a_useful_size(tmp_path: Path) -> None:
    form = Parquet(HALF, {"bundle": "abc"})
    form.write(tmp_path / "p.parquet", (form.pack(both(HALF) * 50) for _ in range(100)))
    file = pyarrow.parquet.ParquetFile(tmp_path / "p.parquet")
    assert json.loads(file.schema_arrow.metadata[METADATA]) == {"bundle": "abc"}
    assert file.schema_arrow.field("score").type == pyarrow.float32()
    assert file.schema_arrow.field("embedding").type == pyarrow.list_(pyarrow.float16(), 3)
    assert not file.schema_arrow.field("key").nullable
    assert file.num_row_groups == 3


# ---------------------------------------------------------------------------------------------------------- the store
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
    with pytest.raises(ZeroDivisionError), store.stage("a") as path:
        path.write_text("half")
        assert store.names() == set()
        _ = 1 / 0
    assert listing(store.folder) == []
    write_text(store, "a", "é")
    assert (store.names(), read_text(store, "a")) == ({"a"}, "é")


def test_files_that_kills_leave_are_cleared(tmp_path: Path) -> None:
    for name in (".a.1234.partial", ".b.1234.partial", ".a.other"):
        (tmp_path / name).touch()
    LocalFolder(tmp_path).clear(lambda name: name == "a")
    assert listing(tmp_path) == [".a.other", ".b.1234.partial"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/x/a: "):
        write_text(LocalFolder(tmp_path / "file" / "x"), "a", "")


# ------------------------------------------------------------------------------------------------------------ the job
def test_parts_are_named_by_their_piece_and_nothing_else_is_a_part(tmp_path: Path) -> None:
    here, piece, other = job(tmp_path), Piece(17, Paths(("a",))), Piece(17, Paths(("b",)))
    name = here.part(piece)
    assert name.startswith("part-000017-")
    assert part_number(name) == 17
    assert len({name, here.part(other), job(tmp_path, top_k=1).part(piece)}) == 3
    assert part_number(here.part(Piece(1_234_567, Paths(())))) == 1_234_567
    here.begin(listed([piece]), resume=False)
    finish(here, piece)
    for file_name in ("part-1-abc.parquet", "x" + name, name + "x"):
        write_text(here.store, file_name, "")
    assert here.begin(listed([piece]), resume=True) == {17: name}


def test_shards() -> None:
    assert Shard.parse("2/8") == Shard(2, 8)
    assert (Shard(2, 8).named("_SUCCESS.json"), WHOLE.named("_SUCCESS.json")) == (
        "_SUCCESS.2-of-8.json",
        "_SUCCESS.json",
    )
    for of, number in itertools.product((1, 2, 9), (0, 1, 8, 10**6)):
        assert sum(Shard(index, of).has(number) for index in range(1, of + 1)) == 1
    for text in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"):
        with pytest.raises(InputError, match="I/N"):
            Shard.parse(text)


def job(folder: Path, shard: Shard = WHOLE, **settings) -> BulkJob:
    return BulkJob({"top_k": 5, **settings}, LocalFolder(folder), shard, ".jsonl")


def pieces(*inputs: str) -> list[Piece]:
    return [Piece(number, Paths((name,))) for number, name in enumerate(inputs)]


def listed(pieces: list[Piece]) -> PieceListing:
    return lambda is_wanted: (piece for piece in pieces if is_wanted(piece.number))


def finish(job: BulkJob, *some: Piece) -> set[str]:
    for piece in some:
        write_text(job.store, job.part(piece), "")
    return {job.part(piece) for piece in some}


def test_refusals_say_how_a_run_differs_from_its_folder(tmp_path: Path) -> None:
    job(tmp_path, only=True).begin(listed(pieces("a")), resume=False)
    here, inputs = job(tmp_path, only=False), [*pieces("a", "b"), Piece(2, TarShard("t.tar", 9))]
    here.begin(listed(inputs), resume=False)  # nothing is finished yet, so anything may begin
    finish(here, *inputs)
    gone = Piece(2, Broken("t.tar", "no route to host"))
    for other, now, resume, message in (
        (job(tmp_path), inputs, True, "written with other settings (only was false, now null)"),
        (job(tmp_path, only=False, top_k=3), inputs, True, "(top_k was 5, now 3)"),
        (here, inputs, False, "3 finished pieces are there; go on with --resume"),
        (
            here,
            [*pieces("a", "c"), inputs[2]],
            True,
            "has other inputs than when it was finished; restore them",
        ),
        (here, inputs[:1], True, "part-000001-"),
        (here, [*inputs[:2], gone], True, "has other inputs than when it was finished (t.tar: no route to host)"),
    ):
        with pytest.raises(InputError) as caught:
            other.begin(listed(now), resume=resume)
        assert message in str(caught.value)
    here.store.discard(here.part(inputs[0]))
    expected = {piece.number: here.part(piece) for piece in inputs}
    with pytest.raises(WriteError, match="1 parts .* part-000000-"):
        here.parts(expected)
    for damaged in ("", "[]", "{}", '{"settings": 3}', "\x00"):
        (tmp_path / JOB).write_text(damaged)
        with pytest.raises(InputError, match="_job.json: damaged"):
            here.begin(listed(inputs), resume=True)


def test_a_shard_that_is_out_of_reach_for_another_reason_stays(tmp_path: Path) -> None:
    here, away = job(tmp_path / "out"), Piece(0, Broken("s.tar", "no route to host"))
    here.begin(listed([away]), resume=False)
    here.abandon()
    assert not here.store.folder.exists()
    here.begin(listed([away]), resume=False)
    finish(here, away)
    here.abandon()
    still = Piece(0, Broken("s.tar", "time is out"))
    assert here.begin(listed([still]), resume=True) == {0: here.part(away)}


def test_two_parts_of_a_piece_are_not_chosen_from(tmp_path: Path) -> None:
    here = job(tmp_path)
    here.begin(listed(pieces("a")), resume=False)
    names = sorted(finish(here, *pieces("a")) | finish(here, *pieces("b")))
    for call in (lambda: here.begin(listed(pieces("a")), resume=True), lambda: here.parts({0: names[0]})):
        with pytest.raises(InputError, match=f"{names[0]} and {names[1]}"):
            call()


def test_a_parquet_file_that_is_back_and_moves_what_follows_is_named(tmp_path: Path) -> None:
    here = job(tmp_path)
    before = [Piece(0, Broken("s.parquet", "no route to host")), Piece(1, TarShard("t.tar", 9))]
    here.begin(listed(before), resume=False)
    parts = finish(here, *before)
    groups = [RowGroup("s.parquet", 7, group, 0, 4, "image", None) for group in range(2)]
    now = [Piece(number, unit) for number, unit in enumerate([*groups, TarShard("t.tar", 9)])]
    with pytest.raises(InputError, match=rf"s.parquet can be read again, .* remove {here.part(before[1])} and all"):
        here.begin(listed(now), resume=True)
    assert parts < here.store.names()  # a refusal removes nothing
    here.store.discard(here.part(before[1]))
    assert here.begin(listed(now), resume=True) == {}


def test_only_own_remains_are_cleared(tmp_path: Path) -> None:
    here = job(tmp_path, Shard(1, 2))
    remains = [here.part(pieces("a")[0]), here.shard.named(REJECTED), here.shard.named(SUCCESS)]
    others = [here.part(pieces("a", "b")[1]), Shard(2, 2).named(REJECTED), JOB]
    for name in (*remains, *others):
        (tmp_path / f".{name}.ab.partial").touch()
    for name in (SUCCESS, here.shard.named(SUCCESS), Shard(2, 2).named(SUCCESS)):
        (tmp_path / name).touch()
    left = {*(f".{name}.ab.partial" for name in others), Shard(2, 2).named(SUCCESS)}
    here.clear()
    assert set(os.listdir(tmp_path)) == {*left, SUCCESS, here.shard.named(SUCCESS)}
    here.reopen()
    assert set(os.listdir(tmp_path)) == left
