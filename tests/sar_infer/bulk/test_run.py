"""Whole runs, as the command starts them: inputs, outputs, and how they go on after anything."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.dataset
import pytest
from support.bulk_runs import answered_here, refused, run, summary
from support.folders import listing
from support.many import read_rows, small_png, write_images, write_parquet, write_tar

from sar_infer import Classifier
from sar_infer.bulk.job import Job, alone
from sar_infer.bulk.rows import Columns, JsonLines
from sar_infer.bulk.store import open_store, write_text

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
    Path("p/inside.tar").touch()
    write_tar(Path("s.tar"), {f"{n}.png": small_png(n) for n in (7, 8)})
    write_parquet(Path("t.parquet"), {"image": [small_png(9), b"no", small_png(10)]}, rows_of_group=2)
    url = f"file://{write_images(Path('more'), 1, first=11)[0].absolute()}"
    Path("all.txt").write_text(f"p/000.png\n{url}\n")
    options = ("--out", "out", "--chunk-size", "3", "--top-k", "2", "--embeddings", "float16")
    result = run("p", "s.tar", "t.parquet", "all.txt", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    warning, line = result.stderr.splitlines()
    assert (
        warning == "Warning: .tar files are passed over (1, such as p/inside.tar); name them, or a pattern, '**/*.tar'"
    )
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
    parts = [f"part-00000{n}.parquet" for n in range(6)]
    assert listing(Path("out")) == ["_SUCCESS.json", "_chunks.jsonl", "_job.json", "_rejected.jsonl", *parts]
    assert {**summary("out/_SUCCESS.json"), "seconds": 0, "rate": 0} == {
        "inputs": 13, "classified": 11, "rejected": 2, "chunks": 6, "resumed": 0, "seconds": 0, "rate": 0
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
    call = ("p", "--out", name, "--chunk-size", "2", "--embeddings")
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
    Path(f"{name}.summary.json").unlink()
    refused(f"{name}: exists; choose another --out", *call, "--resume")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("cut", ["in a row", "between rows"])
@pytest.mark.parametrize(("form", "out"), [("parquet", "out"), ("jsonl", "out"), ("parquet", "all.parquet")])
def test_a_damaged_part_is_named(form: str, out: str, cut: str) -> None:
    write_images(Path("p"), 4)
    call = ("p", "--out", out, "--chunk-size", "2", "--format", form)
    parts = Path(out if out == "out" else f".{out}.parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sar_infer.bulk.run.Job.finish", interrupt)
        assert run(*call).exit_code == 130
    damaged = parts / f"part-000001.{form}"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-20] if cut == "in a row" or form == "parquet" else content.splitlines(True)[0])
    result = run(*call, "--resume")
    assert result.exit_code != 0
    assert f"{damaged}: damaged: " in result.stderr
    damaged.unlink()
    assert run(*call, "--resume").exit_code == 0
    assert len(read_rows(Path(out))) == 4
    if out == "out":  # a run that is complete
        damaged.write_bytes(content[:-20] if cut == "in a row" or form == "parquet" else content.splitlines(True)[0])
        refused(f"{damaged}: damaged: ", *call, "--resume")


def test_a_finished_run_has_nothing_left_to_do() -> None:
    write_images(Path("p"), 3)
    call = ("p", "--out", "out", "--chunk-size", "4")
    assert run(*call).exit_code == 0
    parts = {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")}
    closing = {name: Path("out", name).read_bytes() for name in ("_SUCCESS.json", "_rejected.jsonl")}
    assert run(*call, "--resume").stderr == "already complete: classified 3 of 3\n"
    assert {name: Path("out", name).read_bytes() for name in closing} == closing
    for content in (b"\xff", b"{}", None):
        Path("out/_SUCCESS.json").write_bytes(content) if content else Path("out/_SUCCESS.json").unlink()
        assert run(*call, "--resume").exit_code == 0
        assert (summary("out/_SUCCESS.json")["inputs"], summary("out/_SUCCESS.json")["resumed"]) == (3, 1)
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")} == parts
    refused("out: 1 chunks of an earlier run are there; continue it with --resume", *call)
    refused(r"\(top_k was 5, now 1\)", *call, "--resume", "--top-k", "1")
    refused(r"\(chunk_size was 4, now 3\)", *call, "--resume", "--chunk-size", "3")
    refused(r"\(sources was \[.p.\], now \[.p/000.png.\]\)", "p/000.png", *call[1:], "--resume")
    for damaged in ("", "[]", "{}", '{"settings": 3}'):
        Path("out/_job.json").write_text(damaged)
        Path("out/_SUCCESS.json").unlink(missing_ok=True)
        refused("_job.json: damaged", *call, "--resume")


def test_a_run_goes_on_with_the_inputs_that_it_began_with() -> None:
    write_images(Path("p"), 5)
    call = ("p", "--out", "out", "--chunk-size", "2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sar_infer.bulk.run.Job.finish", interrupt)
        result = run(*call)
    assert result.exit_code == 130
    assert result.stderr == "interrupted; 5 of 5 images are kept; the same command with --resume continues (out)\n"
    Path("out/part-000001.parquet").unlink()
    Path("p/000a.png").write_bytes(small_png(9))
    Path("p/003.png").unlink()
    assert run(*call, "--resume").exit_code == 1
    assert [Path(key).stem for key in keys()] == [f"00{n}" for n in range(5)]
    assert error_kinds() == [None, None, None, "unreadable", None]
    assert summary("out/_SUCCESS.json")["resumed"] == 2


def test_an_outage_is_tried_again() -> None:
    Path("all.txt").write_text("p/000.png\np/gone.png\ns.tar\nt.parquet\np/001.png\n")
    write_images(Path("p"), 2)
    for out in ("out", "all.jsonl"):
        for path in Path().glob("[st].*"):
            path.unlink()
        call = ("all.txt", "--out", out)
        assert run(*call).exit_code == 1
        assert error_kinds(out) == [None, "unreadable", "source", "source", None]
        write_tar(Path("s.tar"), {"x.png": small_png(8), "y.png": small_png(9)})
        assert run(*call, "--resume").exit_code == 1
        write_parquet(Path("t.parquet"), {"image": [small_png(10)]})
        assert run(*call, "--resume").exit_code == 1
        assert error_kinds(out) == [None, "unreadable", None, None, None, None]
        assert keys(out)[2:5] == ["s.tar/x.png", "s.tar/y.png", "t.parquet#0"]
        assert run(*call, "--resume").stderr.startswith("already complete: ")
        assert not Path(".all.jsonl.parts").exists()
    (Path("out") / "part-000001-outage.parquet").touch()  # a run was killed between writing its successor and this
    (Path("out") / "_SUCCESS.json").unlink()
    assert run("all.txt", "--out", "out", "--resume").exit_code == 1
    assert not [*Path("out").glob("*outage*")]


@pytest.mark.parametrize("step", ["before the file", "before the summary", "before all parts are removed"])
def test_the_last_steps_of_a_single_file_can_be_repeated(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_images(Path("p"), 4)
    arguments = ("p", "--chunk-size", "2", "--resume", "--out")
    assert run(*arguments, "expected.jsonl").exit_code == 0

    def stop(*arguments: object) -> None:
        if step == "before the summary" and not str(arguments[1]).endswith(".summary.json"):
            write_text(*arguments)
            return
        if step == "before all parts are removed":
            Path(".answers.jsonl.parts/_job.json").unlink()
        raise KeyboardInterrupt

    function = {
        "before the file": "sar_infer.bulk.rows.JsonLines.merge",
        "before the summary": "sar_infer.bulk.job.write_text",
        "before all parts are removed": "sar_infer.bulk.job.Job._remove_parts",
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


def test_an_output_has_one_run_at_a_time(tmp_path: Path) -> None:
    write_images(Path("p"), 2)
    Path("link").symlink_to("out")
    with alone(Job({}, open_store("out"), JsonLines(Columns())), "out"):
        for out in ("out", "./out/", f"file://{tmp_path}/out", "link"):
            refused("another process is changing it", "p", "--out", out)
    with alone(Job({}, open_store("x"), JsonLines(Columns()), Path("a.jsonl")), "a.jsonl"):
        refused("^Error: a.jsonl: another process is changing it; ", "p", "--out", "a.jsonl")


def test_a_run_without_any_input_is_no_success() -> None:
    write_tar(Path("s.tar"), {"a.json": b"{}", "b.avif": b""})
    result = run("s.tar", "--out", "out")
    assert result.exit_code == 1
    assert result.stderr == "classified 0 of 0; there is no image in what was named\n"
    write_parquet(Path("none.parquet"), {"image": pyarrow.array([], pyarrow.binary())})
    refused("none.parquet: no image in it", "none.parquet", "--out", "more")
