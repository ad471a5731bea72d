"""Whole runs, as the command starts them: inputs, outputs, and how they go on after anything."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
from support.bulk_runs import answered_here, refused, run, summary
from support.folders import listing
from support.many import read_rows, small_png, write_images, write_parquet, write_tar

from sar_infer import Classifier
from sar_infer.bulk.outputs.finish import summary_file
from sar_infer.bulk.outputs.job import BulkJob, Shard, alone
from sar_infer.bulk.outputs.store import open_store
from sar_infer.bulk.sources.listing import InputSources
from sar_infer.bulk.sources.tars import TarShard

__all__ = ["answered_here"]
pytestmark = pytest.mark.usefixtures("here", "answered_here")


def keys(out: str = "out") -> list[str]:
    return [row["key"] for row in read_rows(Path(out))]


def error_kinds(path: str = "out") -> list[str | None]:
    return [row["error_kind"] for row in read_rows(Path(path))]


# ------------------------------------------------------------------------------------------------- what it is there for
def test_everything_becomes_one_row(classifier: Classifier) -> None:
    paths = write_images(Path("p"), 5)
    Path("p/bad.jpg").write_bytes(b"no")
    write_tar(Path("p/inside.tar"), {})
    write_tar(Path("s.tar"), {f"{n}.png": small_png(n) for n in (7, 8)})
    write_parquet(Path("t.parquet"), {"image": [small_png(9), b"no", small_png(10)]}, rows_of_group=2)
    url = f"file://{write_images(Path('more'), 1, first=11)[0].absolute()}"
    Path("all.txt").write_text(f"p/000.png\n{url}\n")
    options = ("--out", "out", "--piece-size", "3", "--top-k", "2", "--embeddings", "float16")
    result = run("p", "s.tar", "t.parquet", "all.txt", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    warning, line = result.stderr.splitlines()
    assert warning == "Warning: p: 1 .tar in it passed over; name them as 'p/**/*.tar'"
    assert re.fullmatch(r"classified 11 of 13 \([\d.]+ a second\); 2 set aside, see out/_rejected.jsonl", line), line
    rows = read_rows(Path("out"))
    parquet_keys = [f"t.parquet#{n}" for n in range(3)]
    expected_keys = [*map(str, paths), "p/bad.jpg", "s.tar/7.png", "s.tar/8.png", *parquet_keys, "p/000.png", url]
    assert [row["key"] for row in rows] == expected_keys
    expected = classifier.classify([small_png(n) for n in (0, 1, 2, 3, 4, 7, 8, 9, 10, 0, 11)], top_k=2)
    for row, answer in zip([row for row in rows if row["error"] is None], expected, strict=True):
        assert row["labels"] == [p.label for p in answer.predictions]
        assert np.allclose(row["scores"], [p.score for p in answer.predictions], rtol=1e-4)
    columns = ("key", "error_kind", "error")
    rejected = read_rows(Path("out/_rejected.jsonl"))
    assert [[row[name] for name in columns] for row in rejected] == [
        [row[name] for name in columns] for row in rows if row["error"] is not None
    ]
    for row in rejected:
        assert row["key"] in keys(f"out/{row['part']}")
    names = [re.sub(r"[0-9a-f]{12}", "DIGEST", name) for name in listing(Path("out"))]
    parts = [f"part-00000{n}-DIGEST.parquet" for n in range(6)]
    assert names == ["_SUCCESS.json", "_job.json", "_rejected.jsonl", *parts]
    assert {**summary("out/_SUCCESS.json"), "seconds": 0, "rate": 0} == {
        "inputs": 13, "classified": 11, "rejected": 2, "pieces": 6, "resumed": 0, "seconds": 0, "rate": 0,
        "passed_over": 0,
    }  # fmt: skip
    table = pyarrow.dataset.dataset("out", format="parquet").to_table()  # as other programs read it
    assert (len(table), table.schema.field("embedding").type.list_size) == (13, 8)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "JSONL"])
def test_one_file(suffix: str) -> None:
    write_images(Path("p"), 5)
    Path("p/bad.jpg").write_bytes(b"no")
    name = f"answers.{suffix}"
    for killed in (name, f"{name}.summary.json"):
        Path(f".{killed}.0123abcd.partial").touch()
    call = ("p", "--out", name, "--piece-size", "2", "--embeddings")
    result = run(*call)
    assert result.exit_code == 1
    assert f"see {name}.rejected.jsonl" in result.stderr
    assert listing(Path()) == [name, f"{name}.rejected.jsonl", f"{name}.summary.json", "p"]
    assert [Path(key).name for key in keys(name)] == [*(f"00{n}.png" for n in range(5)), "bad.jpg"]
    assert len(read_rows(Path(name))[0]["embedding"]) == 8
    before = Path(name).read_bytes()
    again = run(*call, "--resume")
    assert (again.exit_code, again.stderr[:16], Path(name).read_bytes()) == (1, "already complete", before)
    refused(f"{name}: exists; choose another --out", *call)
    refused(rf"{name}: written with other settings \(top_k was 5, now 1\); give", *call, "--resume", "--top-k", "1")
    refused(f"{name}: written with other settings .sources was", "p/000.png", *call, "--resume")
    Path("p/bad.jpg").rename("p/worse.jpg")
    refused(f"{name}: its inputs have changed since it was finished", *call, "--resume")
    summary_file(Path(name)).unlink()
    refused(f"{name}: exists; choose another --out", *call, "--resume")


def test_shards_are_the_whole() -> None:
    write_images(Path("p"), 10)
    assert run("p", "--out", "whole", "--piece-size", "2").exit_code == 0
    for index in (2, 1, 3):
        assert run("p", "--out", "out", "--piece-size", "2", "--shard", f"{index}/3").exit_code == 0
    assert read_rows(Path("out")) == read_rows(Path("whole"))
    assert [summary(f"out/_SUCCESS.{index}-of-3.json")["inputs"] for index in (1, 2, 3)] == [4, 4, 2]
    assert run("p", "--out", "a.jsonl", "--piece-size", "2", "--shard", "2/3").exit_code == 0
    assert [Path(key).stem for key in keys("a.jsonl")] == ["002", "003", "008", "009"]


def test_shards_that_find_other_inputs_are_not_complete() -> None:
    write_images(Path("p"), 8)
    shards = [("p", "--out", "out", "--piece-size", "2", "--shard", f"{index}/2") for index in (1, 2)]
    assert run(*shards[0]).exit_code == 0
    again = run(*shards[0])
    assert (again.exit_code, "finished piece" in again.stderr) == (2, True)  # of this shard, without --resume
    Path("p/000a.png").write_bytes(small_png(9))  # moves one image of each piece into the next
    result = run(*shards[1])
    assert result.exit_code == 1
    assert "out: shard 1/2 found other inputs than 2/2, so images are missing or stand there twice" in result.stderr
    assert not Path("out/_SUCCESS.2-of-2.json").exists()
    Path("p/000a.png").unlink()
    for part_path in Path("out").glob("part-00000[13]*"):
        part_path.unlink()
    assert run(*shards[1], "--resume").exit_code == 0
    assert [Path(key).stem for key in keys()] == [f"00{n}" for n in range(8)]


def test_shards_take_further_inputs_one_after_the_other() -> None:
    for number in range(3):
        write_tar(Path(f"{number}.tar"), {"x.png": small_png(number)})
    for index in (1, 2):
        assert run("{0..1}.tar", "--out", "out", "--shard", f"{index}/2").exit_code == 0
    before = Path("out/_SUCCESS.2-of-2.json").read_bytes()
    assert run("{0..1}.tar", "--out", "out", "--shard", "2/2", "--resume").exit_code == 0
    assert Path("out/_SUCCESS.2-of-2.json").read_bytes() == before
    assert run("{0..2}.tar", "--out", "out", "--shard", "1/2", "--resume").exit_code == 1  # 2/2 does not know of 2.tar
    assert run("{0..2}.tar", "--out", "out", "--shard", "2/2", "--resume").exit_code == 0
    assert run("{0..2}.tar", "--out", "out", "--shard", "1/2", "--resume").exit_code == 0
    assert keys() == [f"{number}.tar/x.png" for number in range(3)]


@pytest.mark.parametrize(("form", "out"), [("parquet", "out"), ("jsonl", "out"), ("parquet", "all.parquet")])
def test_a_damaged_part_is_named(form: str, out: str) -> None:
    write_images(Path("p"), 4)
    call = ("p", "--out", out, "--piece-size", "2", "--format", form)
    parts = Path(out if out == "out" else f".{out}.parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sar_infer.bulk.run._finish", interrupt)
        assert run(*call).exit_code == 130
    damaged = sorted(parts.glob("part-*"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    result = run(*call, "--resume")
    assert result.exit_code != 0
    assert f"{damaged}: cannot be read: " in result.stderr
    damaged.unlink()
    assert run(*call, "--resume").exit_code == 0
    assert len(read_rows(Path(out))) == 4


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_finished_run_has_nothing_left_to_do() -> None:
    write_images(Path("p"), 3)
    call = ("p", "--out", "out", "--piece-size", "4")
    assert run(*call).exit_code == 0
    parts = {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")}
    closing = {name: Path("out", name).read_bytes() for name in ("_SUCCESS.json", "_rejected.jsonl")}
    assert run(*call, "--resume").exit_code == 0
    assert {name: Path("out", name).read_bytes() for name in closing} == closing
    for content in (b"\xff", b"{}", None):
        Path("out/_SUCCESS.json").write_bytes(content) if content else Path("out/_SUCCESS.json").unlink()
        assert run(*call, "--resume").exit_code == 0
        assert (summary("out/_SUCCESS.json")["inputs"], summary("out/_SUCCESS.json")["resumed"]) == (3, 1)
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")} == parts
    refused("1 finished piece is", *call)
    refused(r"\(top_k was 5, now 1\)", *call, "--resume", "--top-k", "1")
    refused(r"\(piece_size was 4, now 3\)", *call, "--resume", "--piece-size", "3")


def test_the_mark_of_success_goes_while_work_is_left() -> None:
    write_images(Path("p"), 2)
    call = ("p", "--out", "out", "--piece-size", "2")
    assert run(*call).exit_code == 0
    write_images(Path("p"), 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sar_infer.bulk.pool.BatchPool.in_order", interrupt)
        assert run(*call, "--resume").exit_code == 130
    assert not Path("out/_SUCCESS.json").exists()
    assert run(*call, "--resume").exit_code == 0
    assert summary("out/_SUCCESS.json")["resumed"] == 1


@pytest.mark.parametrize("step", ["before the file", "before the summary", "before all parts are removed"])
def test_the_last_steps_of_a_single_file_can_be_repeated(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_images(Path("p"), 4)
    arguments = ("p", "--piece-size", "2", "--resume", "--out")
    assert run(*arguments, "expected.jsonl").exit_code == 0

    def stop(*_: object) -> None:
        if step == "before all parts are removed":
            Path(".answers.jsonl.parts/_job.json").unlink()
        raise KeyboardInterrupt

    function = {
        "before the file": "sar_infer.bulk.outputs.rows.JsonLines.merge",
        "before the summary": "sar_infer.bulk.outputs.finish.write_text",
        "before all parts are removed": "sar_infer.bulk.outputs.store.LocalFolder.remove",
    }[step]
    with monkeypatch.context() as patched:
        patched.setattr(function, stop)
        assert run(*arguments, "answers.jsonl").exit_code == 130
    assert Path("answers.jsonl").exists() == (step != "before the file")
    assert run(*arguments, "answers.jsonl").exit_code == 0
    assert Path("answers.jsonl").read_bytes() == Path("expected.jsonl").read_bytes()
    assert [name for name in listing(Path()) if "answers" in name] == [
        "answers.jsonl", "answers.jsonl.rejected.jsonl", "answers.jsonl.summary.json"
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ another attempt
def test_errors_are_retried_by_kind() -> None:
    write_images(Path("p"), 4)
    Path("p/001.png").rename("moved.png")
    Path("all.txt").write_text("".join(f"p/00{n}.png\n" for n in range(4)) + "s.tar\n")
    call = ("all.txt", "--out", "out", "--piece-size", "2")
    assert run(*call).exit_code == 1
    Path("moved.png").rename("p/001.png")
    write_tar(Path("s.tar"), {"x.png": small_png(9)})
    assert error_kinds("out/_rejected.jsonl") == ["unreadable", "source"]
    assert run(*call, "--resume", "--retry", "timeout", "--retry", "crash").exit_code == 1
    assert error_kinds("out/_rejected.jsonl") == ["unreadable"]  # a shard out of reach is always retried
    assert run(*call, "--resume", "--retry", "timeout", "--retry", "unreadable").exit_code == 0
    assert error_kinds("out/_rejected.jsonl") == []
    assert keys() == [*(f"p/00{n}.png" for n in range(4)), "s.tar/x.png"]
    assert summary("out/_SUCCESS.json")["resumed"] == 2


def test_a_retry_before_the_end_of_the_run_is_refused_and_changes_nothing() -> None:
    Path("all.txt").write_text("gone.png\nalso_gone.png\n")
    call = ("all.txt", "--out", "out", "--piece-size", "1")
    assert run(*call).exit_code == 1
    for name in ("_SUCCESS.json", "_rejected.jsonl"):
        Path("out", name).unlink()  # as a run that was killed leaves its folder
    before = listing(Path("out"))
    refused("this run has not ended; end it with --resume alone", *call, "--resume", "--retry", "unreadable")
    assert listing(Path("out")) == before
    write_images(Path(), 1)
    Path("000.png").rename("gone.png")
    assert run(*call, "--resume").exit_code == 1
    assert error_kinds() == ["unreadable", "unreadable"]
    assert run(*call, "--resume", "--retry", "unreadable").exit_code == 1
    assert error_kinds() == [None, "unreadable"]


def test_a_retry_that_is_killed_goes_on_without_a_second_retry() -> None:
    write_images(Path("p"), 2)
    Path("all.txt").write_text("gone.png\np/000.png\nalso_gone.png\n")
    call = ("all.txt", "--out", "out", "--piece-size", "1")
    assert run(*call).exit_code == 1
    write_images(Path(), 1)
    job = BulkJob(json.loads(Path("out/_job.json").read_text())["settings"], open_store("out"), Shard(), ".parquet")
    sources = InputSources(("all.txt",), "image", None, 1)
    assert list(job.begin(sources.pieces, resume=True, retry=["unreadable"])) == [1]  # and here it is killed
    assert listing(Path("out")) == ["_SUCCESS.json", "_job.json", next(Path("out").glob("part-000001-*")).name]
    Path("000.png").rename("gone.png")
    assert run(*call, "--resume", "--retry", "unreadable").exit_code == 1
    assert error_kinds() == [None, None, "unreadable"]


def test_a_damaged_list_of_errors_is_no_reason_to_remove_anything() -> None:
    Path("all.txt").write_text("gone.png\n")
    call = ("all.txt", "--out", "out")
    assert run(*call).exit_code == 1
    for content in (b"\xff", b"[1]", b"{}", b"not json"):
        Path("out/_rejected.jsonl").write_bytes(content)
        refused("_rejected.jsonl: damaged", *call, "--resume", "--retry", "unreadable")
    Path("out/_rejected.jsonl").unlink()
    assert run(*call, "--resume").exit_code == 1
    assert keys("out/_rejected.jsonl") == ["gone.png"]


def test_a_shard_that_is_out_of_reach_for_a_while_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_tar(Path(f"{number}.tar"), {"x.png": small_png(number)})
    Path("all.txt").write_text("0.tar\n1.tar\n2.tar\n")
    real = TarShard.open
    Path("1.tar").rename("away")

    def back_later(location: str) -> TarShard:
        try:
            return real(location)
        finally:
            if location == "2.tar" and Path("away").exists():
                Path("away").rename("1.tar")

    monkeypatch.setattr(TarShard, "open", back_later)
    assert run("all.txt", "--out", "out").exit_code == 1  # the shard came back too late, and is set aside
    assert error_kinds() == [None, "source", None]
    assert run("all.txt", "--out", "out", "--resume").exit_code == 0
    assert keys() == ["0.tar/x.png", "1.tar/x.png", "2.tar/x.png"]
    assert summary("out/_SUCCESS.json")["resumed"] == 2


# -------------------------------------------------------------------------------------------------------- what is wrong


def test_an_output_has_one_run_at_a_time(tmp_path: Path) -> None:
    write_images(Path("p"), 2)
    Path("link").symlink_to("out")
    same = ("out", "./out/", f"file://{tmp_path}/out", "link")
    with held("out", "1/2"):
        for out in same:
            for shard in ("1/2", "1/1"):
                refused("another process is changing it", "p", "--out", out, "--shard", shard)
        assert run("p", "--out", "out", "--piece-size", "1", "--shard", "2/2").exit_code == 0
    with held("out", "1/1"):
        for out in same:
            refused("another process is changing it", "p", "--out", out, "--shard", "1/2")
    with held("a.jsonl", "1/1"):
        refused("^Error: a.jsonl: another process is changing it; ", "p", "--out", "a.jsonl")


def held(out: str, shard: str) -> contextlib.AbstractContextManager[None]:
    """As a run of one shard holds its output."""
    file = Path(out) if out.endswith(".jsonl") else None
    return alone(BulkJob({}, open_store(out), Shard.parse(shard), ".parquet"), out, file)


def test_a_run_without_any_input_is_no_success() -> None:
    write_tar(Path("s.tar"), {"a.json": b"{}", "b.avif": b""})
    result = run("s.tar", "--out", "out")
    assert result.exit_code == 1
    assert result.stderr == "classified 0 of 0; there is no image in what was named\n"
    counts = summary("out/_SUCCESS.json")
    assert (counts["inputs"], counts["pieces"], counts["passed_over"]) == (0, 1, 2)
    write_images(Path("p"), 1)
    assert run("p", "--out", "more", "--shard", "2/2").exit_code == 0  # a share may be of nothing
