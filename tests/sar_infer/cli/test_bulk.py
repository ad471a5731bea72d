"""``sar-classify … --out``, as a user calls it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from support import hanging
from support.folders import listing
from support.many import read_rows, small_png, write_images, write_parquet, write_tar
from support.servers import workers

from sar_infer import Classifier
from sar_infer.bank import ClassInfo, amend, calibrate
from sar_infer.bank.learned import BankCalibration
from sar_infer.bulk.outputs.job import BulkJob, Shard, alone
from sar_infer.bulk.outputs.store import open_store
from sar_infer.bulk.sources.listing import InputSources
from sar_infer.bulk.sources.tars import TarShard
from sar_infer.bundle.bundle import open_bundle
from sar_infer.cli.classify import main

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "sar_infer.cli.classify"]


@pytest.fixture(autouse=True)
def _here(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names one worker too."""
    monkeypatch.setenv("SAR_WORKERS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(*arguments: str) -> Result:
    """In this process; an exception that reaches the user as a traceback fails the test."""
    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(main, arguments)
    signal.signal(signal.SIGTERM, before)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    return result


def refused(message: str, *arguments: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr, nothing written."""
    before = sorted(Path().rglob("*"))
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    assert re.search(message, line), line
    assert sorted(Path().rglob("*")) == before


def summary(place: str) -> dict:
    return json.loads(Path(place).read_text())["summary"]


# ------------------------------------------------------------------------------------------------- what it is there for
def test_everything_becomes_one_row(classifier: Classifier) -> None:
    paths = write_images(Path("p"), 5)
    Path("p/bad.jpg").write_bytes(b"no")
    write_tar(Path("s.tar"), {f"{n}.png": small_png(n) for n in (7, 8)})
    write_parquet(Path("t.parquet"), {"image": [small_png(9), b"no", small_png(10)]}, rows_of_group=2)
    url = f"file://{write_images(Path('more'), 1, first=11)[0].absolute()}"
    Path("all.txt").write_text(f"p/000.png\n{url}\n")
    result = run("p", "s.tar", "t.parquet", "all.txt", "--out", "out", "--piece-size", "3", "--top-k", "2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(
        r"classified 11 of 13 \([\d.]+ a second\); 2 set aside, see out/_rejected.jsonl\n", result.stderr
    ), result.stderr
    rows = read_rows(Path("out"))
    keys = [*map(str, paths), "p/bad.jpg", "s.tar/7.png", "s.tar/8.png", *(f"t.parquet#{n}" for n in range(3))]
    assert [row["key"] for row in rows] == [*keys, "p/000.png", url]
    expected = classifier.classify([small_png(n) for n in (0, 1, 2, 3, 4, 7, 8, 9, 10, 0, 11)], top_k=2)
    good = [row for row in rows if row["error"] is None]
    for row, found in zip(good, expected, strict=True):
        assert row["labels"] == [p.label for p in found.predictions]
        assert np.allclose(row["scores"], [p.score for p in found.predictions], rtol=1e-4)
    told = read_rows(Path("out/_rejected.jsonl"))
    assert [{name: row[name] for name in ("key", "error_kind", "error")} for row in told] == [
        {name: row[name] for name in ("key", "error_kind", "error")} for row in rows if row["error"] is not None
    ]
    for flaw in told:
        assert flaw["key"] in {row["key"] for row in read_rows(Path("out", flaw["part"]))}


def test_a_folder_is_a_dataset_for_other_programs() -> None:
    write_images(Path("p"), 5)
    assert run("p", "--out", "out", "--piece-size", "2", "--embeddings", "float16").exit_code == 0
    table = pyarrow.dataset.dataset("out", format="parquet").to_table()
    assert (len(table), table.schema.field("embedding").type.list_size) == (5, 8)
    names = [re.sub(r"[0-9a-f]{12}", "DIGEST", name) for name in listing(Path("out"))]
    assert names == [
        "_SUCCESS.json", "_job.json", "_rejected.jsonl", *(f"part-00000{n}-DIGEST.parquet" for n in range(3))
    ]  # fmt: skip
    assert {**summary("out/_SUCCESS.json"), "seconds": 0, "rate": 0} == {
        "inputs": 5, "classified": 5, "rejected": 0, "pieces": 3, "resumed": 0, "seconds": 0, "rate": 0,
        "passed_over": 0,
    }  # fmt: skip


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "JSONL"])
def test_one_file(suffix: str) -> None:
    write_images(Path("p"), 5)
    Path("p/bad.jpg").write_bytes(b"no")
    name = f"answers.{suffix}"
    result = run("p", "--out", name, "--piece-size", "2", "--embeddings")
    assert result.exit_code == 1
    assert f"see {name}.rejected.jsonl" in result.stderr
    assert listing(Path()) == [name, f"{name}.rejected.jsonl", f"{name}.summary.json", "p"]
    assert [Path(row["key"]).name for row in read_rows(Path(name))] == [*(f"00{n}.png" for n in range(5)), "bad.jpg"]
    assert len(read_rows(Path(name))[0]["embedding"]) == 8
    before = Path(name).read_bytes()
    again = run("p", "--out", name, "--piece-size", "2", "--embeddings", "--resume")
    assert (again.exit_code, Path(name).read_bytes()) == (1, before)
    refused(f"{name}: exists; choose another --out", "p", "--out", name)
    same = ("p", "--out", name, "--piece-size", "2", "--embeddings", "--resume")
    refused(rf"{name}: written with other settings \(top_k was 5, now 1\); give", *same, "--top-k", "1")
    Path(f"{name}.summary.json").unlink()
    refused(f"{name}: exists; choose another --out", *same)


def test_jsonl_parts_and_classes() -> None:
    write_images(Path("p"), 3)
    Path("new.txt").write_text("owl\nowl\nzebra = zebra | striped horse\n")
    result = run(
        "p", "--out", "out", "--format", "jsonl", "--classes", "new.txt", "--only", "--unknown", "--threshold", "1"
    )
    assert result.stderr.startswith("Warning: new.txt:2: class name 'owl' is already on line 1")
    rows = read_rows(Path("out"))
    assert {label for row in rows for label in row["labels"]} == {"owl", "zebra"}
    assert {row["unknown"] for row in rows} == {True}


def test_shards_are_the_whole() -> None:
    write_images(Path("p"), 10)
    assert run("p", "--out", "whole", "--piece-size", "2").exit_code == 0
    for index in (2, 1, 3):
        assert run("p", "--out", "out", "--piece-size", "2", "--shard", f"{index}/3").exit_code == 0
    assert read_rows(Path("out")) == read_rows(Path("whole"))
    assert [summary(f"out/_SUCCESS.{index}-of-3.json")["inputs"] for index in (1, 2, 3)] == [4, 4, 2]
    assert run("p", "--out", "a.jsonl", "--piece-size", "2", "--shard", "2/3").exit_code == 0
    assert [Path(row["key"]).stem for row in read_rows(Path("a.jsonl"))] == ["002", "003", "008", "009"]


def test_shards_that_find_other_inputs_are_not_complete() -> None:
    write_images(Path("p"), 8)
    shards = [("p", "--out", "out", "--piece-size", "2", "--shard", f"{index}/2") for index in (1, 2)]
    assert run(*shards[0]).exit_code == 0
    Path("p/000a.png").write_bytes(small_png(9))  # moves one image of each piece into the next
    result = run(*shards[1])
    assert result.exit_code == 1
    assert "out: shard 1/2 found other inputs than 2/2, so images are missing or stand there twice" in result.stderr
    assert not Path("out/_SUCCESS.2-of-2.json").exists()
    Path("p/000a.png").unlink()
    for part in Path("out").glob("part-00000[13]*"):
        part.unlink()
    assert run(*shards[1], "--resume").exit_code == 0
    assert [Path(row["key"]).stem for row in read_rows(Path("out"))] == [f"00{n}" for n in range(8)]


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
    assert [row["key"] for row in read_rows(Path("out"))] == [f"{number}.tar/x.png" for number in range(3)]


@pytest.mark.parametrize(("form", "out"), [("parquet", "out"), ("jsonl", "out"), ("parquet", "all.parquet")])
def test_a_damaged_part_is_named(form: str, out: str) -> None:
    write_images(Path("p"), 4)
    call = ("p", "--out", out, "--piece-size", "2", "--format", form)
    parts = Path(out if out == "out" else f".{out}.parts")
    with contextlib.suppress(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sar_infer.bulk.run._finish", raise_interrupt)
        assert run(*call).exit_code == 130
    damaged = sorted(parts.glob("part-*"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    result = run(*call, "--resume")
    assert result.exit_code != 0
    assert f"{damaged}: cannot be read: " in result.stderr
    damaged.unlink()
    assert run(*call, "--resume").exit_code == 0
    assert len(read_rows(Path(out))) == 4


def raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_finished_run_has_nothing_left_to_do() -> None:
    write_images(Path("p"), 3)
    run("p", "--out", "out")
    parts = {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")}
    told = {name: Path("out", name).read_bytes() for name in ("_SUCCESS.json", "_rejected.jsonl")}
    assert run("p", "--out", "out", "--resume").exit_code == 0
    assert {name: Path("out", name).read_bytes() for name in told} == told
    for content in (b"\xff", b"{}", None):
        Path("out/_SUCCESS.json").write_bytes(content) if content else Path("out/_SUCCESS.json").unlink()
        assert run("p", "--out", "out", "--resume").exit_code == 0
        assert (summary("out/_SUCCESS.json")["inputs"], summary("out/_SUCCESS.json")["resumed"]) == (3, 1)
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")} == parts


def test_what_was_set_aside_is_retried_by_kind() -> None:
    write_images(Path("p"), 4)
    Path("p/001.png").rename("moved.png")
    Path("all.txt").write_text("".join(f"p/00{n}.png\n" for n in range(4)) + "s.tar\n")
    call = ("all.txt", "--out", "out", "--piece-size", "2")
    assert run(*call).exit_code == 1
    Path("moved.png").rename("p/001.png")
    write_tar(Path("s.tar"), {"x.png": small_png(9)})
    told = Path("out/_rejected.jsonl")
    assert [row["error_kind"] for row in read_rows(told)] == ["unreadable", "source"]
    assert run(*call, "--resume", "--retry", "timeout", "--retry", "crash").exit_code == 1
    assert [row["error_kind"] for row in read_rows(told)] == ["unreadable"]  # a shard out of reach is always retried
    assert run(*call, "--resume", "--retry", "timeout", "--retry", "unreadable").exit_code == 0
    assert read_rows(told) == []
    assert [row["key"] for row in read_rows(Path("out"))] == [*(f"p/00{n}.png" for n in range(4)), "s.tar/x.png"]
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
    assert [row["error_kind"] for row in read_rows(Path("out"))] == ["unreadable", "unreadable"]
    assert run(*call, "--resume", "--retry", "unreadable").exit_code == 1
    assert [row["error_kind"] for row in read_rows(Path("out"))] == [None, "unreadable"]


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
    assert [row["error_kind"] for row in read_rows(Path("out"))] == [None, None, "unreadable"]


@pytest.mark.parametrize("content", ["\xff", "[1]", "{}", "not json"])
def test_a_damaged_list_of_errors_is_no_reason_to_remove_anything(content: str) -> None:
    Path("all.txt").write_text("gone.png\n")
    assert run("all.txt", "--out", "out").exit_code == 1
    Path("out/_rejected.jsonl").write_text(content, "latin-1")
    refused("_rejected.jsonl: damaged", "all.txt", "--out", "out", "--resume", "--retry", "unreadable")
    Path("out/_rejected.jsonl").unlink()
    assert run("all.txt", "--out", "out", "--resume").exit_code == 1
    assert read_rows(Path("out/_rejected.jsonl"))[0]["key"] == "gone.png"


def test_further_shards_may_come_behind() -> None:
    for number in range(3):
        write_tar(Path(f"{number}.tar"), {"x.png": small_png(number)})
    assert run("{0..1}.tar", "--out", "out").exit_code == 0
    assert run("{0..2}.tar", "--out", "out", "--resume").exit_code == 0
    assert [row["key"] for row in read_rows(Path("out"))] == ["0.tar/x.png", "1.tar/x.png", "2.tar/x.png"]
    assert summary("out/_SUCCESS.json")["resumed"] == 2
    assert run("{0..1}.tar", "--out", "a.jsonl").exit_code == 0
    refused("a.jsonl: written with other settings .sources was", "{0..2}.tar", "--out", "a.jsonl", "--resume")


@pytest.mark.parametrize("step", ["before the file", "before the summary", "before all parts are removed"])
def test_the_last_steps_of_a_single_file_can_be_repeated(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_images(Path("p"), 4)
    arguments = ("p", "--piece-size", "2", "--resume", "--out")
    assert run(*arguments, "expected.jsonl").exit_code == 0

    def stop(*_: object) -> None:
        if step == "before all parts are removed":
            Path(".answers.jsonl.parts/_job.json").unlink()
        raise KeyboardInterrupt

    where = {
        "before the file": "sar_infer.bulk.outputs.rows.JsonLines.merge",
        "before the summary": "sar_infer.bulk.outputs.finish.write_text",
        "before all parts are removed": "sar_infer.bulk.outputs.store.LocalFolder.remove",
    }[step]
    with monkeypatch.context() as patched:
        patched.setattr(where, stop)
        assert run(*arguments, "answers.jsonl").exit_code == 130
    assert Path("answers.jsonl").exists() == (step != "before the file")
    assert run(*arguments, "answers.jsonl").exit_code == 0
    assert Path("answers.jsonl").read_bytes() == Path("expected.jsonl").read_bytes()
    assert [name for name in listing(Path()) if "answers" in name] == [
        "answers.jsonl", "answers.jsonl.rejected.jsonl", "answers.jsonl.summary.json"
    ]  # fmt: skip


def test_a_run_into_storage() -> None:
    write_images(Path("p"), 3)
    assert run("p", "--out", "memory://answers/run", "--piece-size", "2").exit_code == 0
    memory = fsspec.filesystem("memory")
    parts = sorted(memory.glob("/answers/run/part-*.parquet"))
    keys = [row["key"] for part in parts for row in pyarrow.parquet.read_table(memory.open(part)).to_pylist()]
    assert keys == ["p/000.png", "p/001.png", "p/002.png"]
    assert memory.exists("/answers/run/_SUCCESS.json")
    again = run("p", "--out", "memory://answers/run", "--piece-size", "2", "--resume")
    assert (again.exit_code, again.stderr.splitlines()[-1][:16]) == (0, "already complete")
    refused("2 finished pieces are there", "p", "--out", "memory://answers/run", "--piece-size", "2")


# -------------------------------------------------------------------------------------------------------- what is wrong
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "out"), "no image given"),
        (("gone.tar", "--out", "out"), "gone.tar: no such file or folder"),
        (("p", "--only", "--out", "out"), "--only needs --classes"),
        (("p", "--resume"), "--resume needs --out"),
        (("p", "--shard", "1/2"), "--shard needs --out"),
        (("p", "--retry", "crash"), "--retry needs --out"),
        (("p", "--retry", "crash", "--out", "out"), "--retry needs --resume"),
        (("p", "--retry", "crash", "--resume", "--out", "a.parquet"), "choose a folder as --out"),
        (("p", "--format", "parquet"), "--format parquet needs --out"),
        (("p", "--out", "out", "--profile"), "--profile is for runs without --out"),
        (("p", "--out", "out", "--format", "csv"), "expected --format parquet or jsonl, got csv"),
        (("p", "--out", "out", "--shard", "3/2"), "expected I/N with I of 1 to N, got 3/2"),
        (("p", "--out", "s3://bucket/a.parquet"), "in storage the output is a folder of parts"),
        (("p", "--out", "gs://bucket/a"), "needs gcsfs; pip install"),
        (("p", "--out", "a.parquet", "--format", "jsonl"), "a.parquet: is parquet, but --format jsonl was given"),
        (("p", "--out", "a.csv"), "a.csv: expected FILE.parquet, FILE.jsonl, or a folder"),
        (("p", "--out", "out", "--format", "text"), "expected --format parquet or jsonl, got text"),
        (("s.tar",), "s.tar: a tar shard, Parquet file, list or URL needs --out"),
        (("p", "s3://bucket/a.png"), "s3://bucket/a.png: a tar shard, Parquet file, list or URL needs --out"),
        (("x" * 5000, "--out", "out"), "^Error: x+…$"),
        (("t.parquet", "--out", "out", "--column", "jpg"), "no column 'jpg'; it has image"),
        (("none.parquet", "--out", "out"), "none.parquet: no image in it"),
        (("p", "--out", "http://x/a"), "web servers are not"),
        (("p", "--out", "dir.jsonl"), "dir.jsonl: is a folder"),
        (("p", "--out", "p/000.png"), "p/000.png: is a file; name a folder"),
        (("p", "--out", "full"), "not empty, and not the output of a bulk run"),
        (("p", "--out", "out", "--bundle", "gone"), "gone: no such folder"),
        (("p", "--out", "out", "--coverage", "0.9"), "coverage 0.9"),
        (("p", "--out", "out", "--classes", "gone.txt"), "no such class file"),
    ],
)
def test_refusals(arguments: tuple[str, ...], message: str) -> None:
    write_images(Path("p"), 1)
    for name in ("full", "dir.jsonl"):
        Path(name).mkdir()
    Path("full/thesis.doc").touch()
    write_parquet(Path("t.parquet"), {"image": [b""]})
    write_parquet(Path("none.parquet"), {"image": pyarrow.array([], pyarrow.binary())})
    refused(message, *arguments)


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        (
            "pyarrow",
            ("p", "--out", "a.parquet"),
            r"Parquet needs pyarrow: pip install 'sar-clip\[bulk\]', or write .jsonl",
        ),
        ("pyarrow", ("t.parquet", "--out", "a.jsonl"), "reading Parquet needs pyarrow"),
        ("fsspec", ("memory://x", "--out", "a.jsonl"), r"needs fsspec; pip install 'sar-clip\[bulk\]'$"),
        ("ray", ("p", "--out", "a.jsonl", "--engine", "ray"), r"needs Ray: pip install 'sar-clip\[ray\]'"),
    ],
)
def test_a_missing_package_is_named(
    package: str, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(Path("p"), 1)
    write_parquet(Path("t.parquet"), {"image": [b""]})
    for name in [name for name in sys.modules if name.partition(".")[0] == package] + [package]:
        monkeypatch.setitem(sys.modules, name, None)
    refused(message, *arguments)


def test_other_settings_and_inputs_are_refused() -> None:
    write_images(Path("p"), 3)
    run("p", "--out", "out", "--piece-size", "2")
    refused("1 finished pieces|2 finished pieces", "p", "--out", "out", "--piece-size", "2")
    refused(r"\(top_k was 5, now 1\)", "p", "--out", "out", "--piece-size", "2", "--resume", "--top-k", "1")
    refused(r"\(piece_size was 2, now 3\)", "p", "--out", "out", "--piece-size", "3", "--resume")
    Path("p/0005.png").write_bytes(small_png(5))
    refused(r"out: part-000000-\w+.parquet has other inputs", "p", "--out", "out", "--piece-size", "2", "--resume")


def test_what_a_bank_knows_of_its_classes_is_a_setting_too(bundle_path: Path) -> None:
    """Neither changes its names, rows and photos, and so its digest."""
    write_images(Path("p"), 3)
    bank, file = open_bundle(bundle_path).bank, "b.safetensors"
    bank.save(Path(file))
    arguments = ("p", "--out", "out", "--piece-size", "2", "--bank", file)
    assert run(*arguments).exit_code == 0
    calibration = BankCalibration(
        bank.content_digest, "m", "text", ("red",), (), 2.0, {"score": 0.5, "energy": -1.0}, {}, {}
    )
    for changed in (
        amend(bank, {"red": ClassInfo(background=True)}),
        amend(bank, {"red": ClassInfo(threshold=0.5)}),
        calibrate(bank, calibration),
    ):
        assert changed.content_digest == bank.content_digest
        changed.save(Path(file))
        refused("written with other settings .bank_info was null, now ", *arguments, "--resume")
    bank.save(Path(file))
    assert run(*arguments, "--resume").exit_code == 0


def test_an_output_that_is_worked_on(tmp_path: Path) -> None:
    write_images(Path("p"), 2)
    Path("link").symlink_to("out")
    same = ("out", "./out/", f"file://{tmp_path}/out", "link")
    with held("out", "1/2"):
        for place in same:
            for shard in ("1/2", "1/1"):
                refused("another process is changing it", "p", "--out", place, "--shard", shard)
        assert run("p", "--out", "out", "--piece-size", "1", "--shard", "2/2").exit_code == 0
    with held("out", "1/1"):
        for place in same:
            refused("another process is changing it", "p", "--out", place, "--shard", "1/2")


@pytest.mark.parametrize("out", ["out", "a.jsonl"])
def test_an_output_has_one_run_whatever_its_temporary_folder_is(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(Path("p"), 2)
    with held(out, "1/1"):
        monkeypatch.setenv("TMPDIR", str(Path("p").absolute()))
        done = subprocess.run([*COMMAND, "p", "--out", out], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"Error: {out}: another process is changing it; .*\n", done.stderr)
    assert listing(Path()) == ["p"]


def test_a_lock_that_is_a_link_is_not_followed() -> None:
    write_images(Path("p"), 1)
    Path("victim").write_text("precious")
    Path("out").mkdir()
    for out, lock in (("out", Path("out/.run.lock")), ("a.jsonl", Path(".a.jsonl.lock"))):
        lock.symlink_to(Path("victim").absolute())
        refused(r"lock: this lock cannot be taken \(it is a link\)", "p", "--out", out)
    assert Path("victim").read_text() == "precious"


def held(out: str, shard: str) -> contextlib.AbstractContextManager[None]:
    """As a run of one shard holds its output."""
    file = Path(out) if out.endswith(".jsonl") else None
    return alone(BulkJob({}, open_store(out), Shard.parse(shard), ".parquet"), out, file)


def test_a_worker_that_cannot_start_leaves_nothing_behind(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(Path("p"), 1)
    hanging.plant(tmp_path_factory.mktemp("flaw") / "site", monkeypatch, hanging.die)
    for out in ("out", "a.jsonl"):
        refused("no worker can start", "p", "--out", out)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no limit there")
def test_an_image_that_hangs_has_its_row(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging.plant(here / "site", monkeypatch, hanging.hang)
    write_tar(Path("s.tar"), {"a.png": small_png(1), "hangs.png": hanging.HANGS, "b.png": small_png(2)})
    result = run("s.tar", "--out", "out", "--image-timeout", "1")
    assert result.exit_code == 1
    assert "; 1 set aside, see out/_rejected.jsonl" in result.stderr
    first, second, third = read_rows(Path("out"))
    assert (second["key"], second["error_kind"]) == ("s.tar/hangs.png", "timeout")
    assert second["error"] == "took more than 1 s to decode (--image-timeout)"
    assert first["label"] and third["label"]
    again = run("s.tar", "--out", "out", "--image-timeout", "2", "--resume")  # no answer depends on it
    assert (again.exit_code, len(read_rows(Path("out")))) == (1, 3)


def test_files_that_crash_what_reads_them_cost_their_own_rows(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar where its images are, a Parquet file in its footer, and one in its first row group of two."""
    write_tar(Path("crash-10000.tar"), {f"{n}.png": small_png(n) for n in range(9)})
    write_parquet(Path("t.parquet"), {"image": [small_png(n) for n in range(3)]})
    footer = f"crash-{Path('t.parquet').stat().st_size - 10}.parquet"
    Path(footer).write_bytes(Path("t.parquet").read_bytes())
    write_parquet(Path("crash-5.parquet"), {"image": [os.urandom(100_000), small_png(7)]}, rows_of_group=1)
    Path("all.txt").write_text("\n".join(["crash-10000.tar", footer, "t.parquet", "crash-5.parquet"]))
    call = ("all.txt", "--out", "out", "--batch-size", "2")
    with monkeypatch.context() as planted:
        hanging.plant(tmp_path_factory.mktemp("flaw") / "site", planted, hanging.trap, "sar_infer.bulk.locations")
        assert run(*call).exit_code == 1
    rows = read_rows(Path("out"))
    good = {row["key"] for row in rows if not row["error"]}
    assert good == {
        "crash-10000.tar/0.png", "crash-10000.tar/1.png", *(f"t.parquet#{n}" for n in range(3)), "crash-5.parquet#1"
    }  # fmt: skip
    flaws = [(row["key"], row["error_kind"]) for row in rows if row["error"]]
    assert flaws == [(name, "source") for name in ("crash-10000.tar", footer, "crash-5.parquet")]
    assert all("the process that read it died" in row["error"] for row in rows if row["error"])
    assert run(*call, "--resume", "--retry", "source").exit_code == 1  # the first of the last file is no image
    keys = [*(f"crash-10000.tar/{n}.png" for n in range(9)), *(f"{footer}#{n}" for n in range(3))]
    keys += [*(f"t.parquet#{n}" for n in range(3)), "crash-5.parquet#0", "crash-5.parquet#1"]
    assert [row["key"] for row in read_rows(Path("out"))] == keys
    assert summary("out/_SUCCESS.json")["resumed"] == 2


def test_a_run_without_any_input_is_no_success() -> None:
    write_tar(Path("s.tar"), {"a.json": b"{}", "b.avif": b""})
    result = run("s.tar", "--out", "out")
    assert result.exit_code == 1
    assert result.stderr == "classified 0 of 0; there is no image in what was named\n"
    assert {name: summary("out/_SUCCESS.json")[name] for name in ("inputs", "pieces", "passed_over")} == {
        "inputs": 0, "pieces": 1, "passed_over": 2
    }  # fmt: skip
    write_images(Path("p"), 1)
    assert run("p", "--out", "more", "--shard", "2/2").exit_code == 0  # a share may be of nothing


def test_a_finished_file_is_of_its_inputs() -> None:
    write_images(Path("p"), 3)
    assert run("p", "--out", "a.jsonl").exit_code == 0
    assert run("p", "--out", "a.jsonl", "--resume").exit_code == 0
    write_images(Path("p"), 4)
    refused("a.jsonl: its inputs have changed since it was finished", "p", "--out", "a.jsonl", "--resume")
    for number in (2, 3):
        Path(f"p/00{number}.png").unlink()
    refused("a.jsonl: its inputs have changed since it was finished", "p", "--out", "a.jsonl", "--resume")


def test_the_mark_of_success_goes_while_work_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(Path("p"), 2)
    assert run("p", "--out", "out", "--piece-size", "2").exit_code == 0
    write_images(Path("p"), 4)
    with monkeypatch.context() as patched:
        patched.setattr("sar_infer.bulk.pool.BatchPool.in_order", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run("p", "--out", "out", "--piece-size", "2", "--resume").exit_code == 130
    assert not Path("out/_SUCCESS.json").exists()
    assert run("p", "--out", "out", "--piece-size", "2", "--resume").exit_code == 0
    assert Path("out/_SUCCESS.json").exists()


def test_a_shard_that_is_out_of_reach_for_a_while_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_tar(Path(f"{number}.tar"), {"x.png": small_png(number)})
    Path("all.txt").write_text("0.tar\n1.tar\n2.tar\n")
    real = TarShard.open
    Path("1.tar").rename("away")

    def back_later(place: str) -> TarShard:
        try:
            return real(place)
        finally:
            if place == "2.tar" and Path("away").exists():
                Path("away").rename("1.tar")

    monkeypatch.setattr(TarShard, "open", back_later)
    assert run("all.txt", "--out", "out").exit_code == 1  # the shard came back too late, and is set aside
    assert [row["error_kind"] for row in read_rows(Path("out"))] == [None, "source", None]
    assert run("all.txt", "--out", "out", "--resume").exit_code == 0
    assert [row["key"] for row in read_rows(Path("out"))] == ["0.tar/x.png", "1.tar/x.png", "2.tar/x.png"]
    assert summary("out/_SUCCESS.json")["resumed"] == 2


def test_shards_in_a_folder_are_told_of() -> None:
    write_images(Path("p"), 1)
    write_tar(Path("p/s.tar"), {"x.png": small_png(1)})
    told = run("p", "--out", "out").stderr.splitlines()
    assert told[0] == "Warning: p: 1 .tar in it passed over; name them as 'p/**/*.tar'"
    assert told[1].startswith("classified 1 of 1")


# --------------------------------------------------------------------------------------------------- stopped and killed
def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(parts: int, process: subprocess.Popen[str], place: str = "out") -> None:
    end = time.monotonic() + 60
    while len([*Path(place).glob("part-*")]) < parts and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_what_is_finished(number: int, code: int) -> None:
    write_images(Path("p"), 200)
    process = start("p", "--out", "out", "--piece-size", "4")
    wait_for(2, process)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert re.search(
        r"^interrupted; what is finished is kept; the same command with --resume continues", told, re.MULTILINE
    )
    assert "Traceback" not in told
    assert not [name for name in listing(Path("out")) if name.startswith(".")]
    assert not Path("out/_SUCCESS.json").exists()
    assert run("p", "--out", "out", "--piece-size", "4", "--resume").exit_code == 0
    assert len(read_rows(Path("out"))) == 200


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no limit there")
def test_a_signal_is_not_kept_waiting_by_an_image_that_hangs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging.plant(here / "site", monkeypatch, hanging.hang)
    write_images(Path("p"), 4)
    write_tar(Path("s.tar"), {"hangs.png": hanging.HANGS})
    arguments = ("p", "s.tar", "--out", "out", "--piece-size", "1", "--image-timeout", "3600")
    process = start(*arguments)
    try:
        wait_for(3, process)  # the fourth is committed when the fifth has begun to come
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    end = time.monotonic() + 30
    while group(process.pid):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("out", ["out", "answers.parquet"])
def test_kills_lose_and_double_nothing(out: str) -> None:
    """At random points, the start and the end among them; what comes of it is what an undisturbed run gives."""
    write_images(Path("p"), 60)
    Path("p/bad.jpg").write_bytes(b"no")
    write_tar(Path("s.tar"), {f"{n}.png": small_png(n) for n in range(100, 140)})
    arguments = ("p", "s.tar", "--piece-size", "8", "--batch-size", "4", "--workers", "2")
    assert run(*arguments, "--out", "undisturbed").exit_code == 1
    chance = random.Random(6)
    parts = "out" if out == "out" else f".{out}.parts"
    for kill, finished in enumerate((1, 3, 5, 8)):
        process = start(*arguments, "--out", out, "--resume")
        wait_for(finished, process, parts)
        time.sleep(chance.random() * 0.1)
        os.killpg(process.pid, signal.SIGKILL) if kill % 2 else process.kill()
        process.communicate(timeout=60)
    assert run(*arguments, "--out", out, "--resume").exit_code == 1
    assert read_rows(Path(out)) == read_rows(Path("undisturbed"))
    assert not [name for name in listing(Path()) if name.startswith(".")]
    assert not [name for name in listing(Path("undisturbed")) if name.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_at_once_while_workers_start(number: int) -> None:
    """As a terminal sends it: to the run and to processes that Python is still starting in."""
    write_images(Path("p"), 40)
    for wait in (0, 0.1, 0.2, 0.4):
        process = start("p", "--out", f"out-{wait}", "--workers", "2")
        while not group(process.pid) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(wait)
        os.killpg(process.pid, number)
        _, told = process.communicate(timeout=60)
        assert "Traceback" not in told, told
        assert process.returncode in (128 + number, 0), told


def test_kills_while_the_single_file_is_written_leave_nothing_hidden() -> None:
    write_images(Path("p"), 6)
    arguments = ("p", "--out", "answers.parquet", "--piece-size", "1", "--embeddings", "--resume")
    kills = 0
    for _ in range(20):  # one that is not seen in time, on a busy machine, ends by itself
        process = start(*arguments)
        while process.poll() is None:
            if [name for name in os.listdir() if name.endswith(".partial")]:
                process.kill()
                kills += 1
                break
            time.sleep(0.0002)
        process.communicate(timeout=60)
        if kills == 3:
            break
        if process.returncode == 0:
            Path("answers.parquet").unlink()
    assert kills == 3
    assert run(*arguments).exit_code == 0
    assert not [name for name in os.listdir() if name.startswith(".")]
    assert len(read_rows(Path("answers.parquet"))) == 6


def test_names_of_files_reach_no_terminal_as_they_are() -> None:
    """A terminal would obey what they say."""
    folder = Path("p\x1b[31m")
    write_images(folder, 1)
    (folder / "e\x1b[2Jv\nil").write_bytes(b"no suffix")
    (folder / "linked\x1b[31m").symlink_to("..")
    (folder / "bad\x1b[31m.png").write_bytes(b"no image")
    for arguments in ((str(folder), "--out", "o\x1b[31m.jsonl"), ("none\x1b[31m.jpg", "--out", "o.jsonl")):
        lines = run(*arguments).stderr.splitlines()
        assert "\\x1b" in "".join(lines)
        assert all(map(str.isprintable, lines)), lines


@pytest.mark.parametrize(
    ("large", "delay"), [("arguments", 0), ("names", 0), ("names", 0.001), ("names", 0.005), ("names", 0.05)]
)
def test_a_worker_that_is_killed_while_python_starts_in_it_is_replaced(large: str, delay: float) -> None:
    """Names and arguments are more than a pipe holds."""
    folder = Path("x" * 200)
    write_images(folder, 400 if large == "arguments" else 1)
    images, options = sorted(map(str, folder.iterdir())), ["--out", "o.jsonl", "--workers", "1"]
    if large == "names":
        Path("names.txt").write_text("".join(f"thing {number} {'of many' * 5}\n" for number in range(6000)))
        options += ["--classes", "names.txt", "--only"]
    process = start(*images, *options)
    try:
        killed: list[int] = []
        while not killed and process.poll() is None:
            killed = workers(process.pid)
            time.sleep(delay if killed else 0.001)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        _, told = process.communicate(timeout=200)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert killed
    assert (process.returncode, len(read_rows(Path("o.jsonl")))) == (0, len(images)), told


def test_workers_end_when_the_run_is_killed() -> None:
    write_images(Path("p"), 400)
    process = start("p", "--out", "out", "--piece-size", "4", "--workers", "2")
    wait_for(1, process)
    assert group(process.pid)
    process.kill()
    process.communicate(timeout=60)
    end = time.monotonic() + 30
    while group(process.pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def group(leader: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z" and int(status.parent.name) != leader:
            found.append(int(status.parent.name))
    return found


def test_a_run_whose_stderr_nobody_reads_any_more_is_finished() -> None:
    write_images(Path("p"), 6)
    read, write = os.pipe()
    command = ("-c", "import sar_infer.bulk.progress as p, sar_infer.cli.classify as c; p._EVERY_LINE = 0; c.main()")
    arguments = ("p", "--out", "a.jsonl", "--batch-size", "2", "--progress")
    os.close(read)
    done = subprocess.run([sys.executable, *command, *arguments], stderr=write, timeout=60)
    os.close(write)
    assert done.returncode == 0
    assert len(read_rows(Path("a.jsonl"))) == 6


def test_progress_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(Path("p"), 6)
    monkeypatch.setattr("sar_infer.bulk.progress._EVERY_LINE", 0)
    told = run("p", "--out", "out", "--batch-size", "2", "--progress").stderr.splitlines()
    line = r"6 of 6 done, 0 set aside, [\d.,]+/s, 0:00:00 left|6 done, 0 set aside, [\d.,]+/s"
    assert re.fullmatch(line, told[-2]), told
    assert len(told) == 5
