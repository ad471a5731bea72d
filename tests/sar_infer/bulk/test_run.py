"""Whole runs, as the command starts them: inputs, outputs, and how they go on after anything."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
from support.bulk_runs import answered_here, refused, run, summary
from support.disk import files_of_at_most
from support.folders import listing
from support.many import read_rows, small_png, write_images, write_parquet, write_tar
from support.pictures import huge_png

from sar_infer import Classifier
from sar_infer.bank import remove, set_class
from sar_infer.bulk import engine
from sar_infer.bulk.containers import MOST_BYTES
from sar_infer.bundle.bundle import open_bundle
from sar_infer.storage.files import owned

__all__ = ["answered_here"]
pytestmark = pytest.mark.usefixtures("here", "answered_here")


NUMBERS = ("score", "logit", "similarity", "scores", "unknown", "margin")


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


def test_both_forms_have_the_same_rows() -> None:
    """With all columns, and names in any alphabet."""
    write_images(Path("réd "), 2)
    Path("réd /c\n.png").write_bytes(b"no image")
    options = ("--unknown", "--threshold", "0.5", "--explain", "--embeddings=float16")
    for form in ("parquet", "jsonl"):
        result = run("réd ", "--out", form, "--format", form, *options)
        assert result.exit_code == 1, result.stderr
    rows = read_rows(Path("jsonl"))
    assert read_rows(Path("parquet")) == [
        {**row, **{name: value and pytest.approx(value, rel=1e-6) for name, value in row.items() if name in NUMBERS}}
        for row in rows
    ]
    good, bad = (rows[0], rows[2]) if rows[2]["error"] else (rows[1], rows[0])
    assert bad["key"] == "réd /c\n.png"
    assert {name for name, value in bad.items() if value is not None} == {"key", "error", "error_kind"}
    assert good["margin"] == pytest.approx(good["scores"][0] - good["scores"][1])
    assert (good["runner_up"], len(good["embedding"])) == (good["labels"][1], 8)
    file = pyarrow.parquet.ParquetFile("parquet/part-000000.parquet")
    settings = json.loads(file.schema_arrow.metadata[b"sar_clip"])
    assert (settings["top_k"], settings["sources"], len(settings["encoder"])) == (5, ["réd "], 64)
    types = {name: str(file.schema_arrow.field(name).type) for name in ("key", "score", "labels", "embedding")}
    assert types["embedding"].startswith("fixed_size_list<") and "halffloat" in types["embedding"]
    assert (types["key"], types["score"]) == ("string", "float")


def test_inputs_that_cannot_be_read_are_rows_with_the_reason() -> None:
    write_images(Path("p"), 1)
    Path("folder.png").mkdir()
    Path("huge.png").write_bytes(huge_png(20_000, 20_000))
    with Path("large.png").open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    fsspec.filesystem("memory").pipe_file("/some/large.png", bytes(MOST_BYTES + 1))
    expected = {
        "p/000.png": (None, "None"),
        "gone.png": ("unreadable", "no such file"),
        "folder.png": ("unreadable", "not a file"),
        "huge.png": ("size", "400,000,000 pixels|too large"),
        "large.png": ("size", f"too large: more than {MOST_BYTES} bytes"),
        "memory://some/large.png": ("size", f"too large: more than {MOST_BYTES} bytes"),
        "memory://some/gone.png": ("unreadable", "cannot be read"),
        "http://x/y.png": ("unreadable", "web servers are not read"),
        "gs://x/y.png": ("unreadable", r"needs a package: pip install '.\[bulk\]' gcsfs"),
    }
    Path("all.txt").write_text("\n".join(expected))
    run("all.txt", "--out", "out")
    fsspec.filesystem("memory").rm_file("/some/large.png")
    rows = {row["key"]: (row["error_kind"], str(row["error"])) for row in read_rows(Path("out"))}
    assert {key: kind for key, (kind, _) in rows.items()} == {key: kind for key, (kind, _) in expected.items()}
    for key, (_, reason) in expected.items():
        assert re.search(reason, rows[key][1]), rows[key]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("cut", ["in a row", "between rows", "all of it"])
def test_a_damaged_part_is_named(form: str, cut: str) -> None:
    write_images(Path("p"), 4)
    call = ("p", "--out", "out", "--chunk-size", "2", "--format", form)
    assert run(*call).exit_code == 0
    damaged = Path(f"out/part-000001.{form}")
    content = damaged.read_bytes()
    lines = content.splitlines(True)[0] if form == "jsonl" else content[:-20]
    damaged.write_bytes({"in a row": content[:-20], "between rows": lines, "all of it": b""}[cut])
    result = run(*call, "--resume")
    assert result.exit_code != 0
    assert f"{damaged}: damaged: " in result.stderr
    damaged.unlink()
    assert run(*call, "--resume").exit_code == 0
    assert len(read_rows(Path("out"))) == 4


def test_a_finished_run_has_nothing_left_to_do() -> None:
    write_images(Path("p"), 3)
    call = ("p", "--out", "out", "--chunk-size", "4")
    assert run(*call).exit_code == 0
    parts = {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")}
    rejected = Path("out/_rejected.jsonl").read_bytes()
    for damaged in (b"\xff", b"{}"):
        Path("out/_SUCCESS.json").write_bytes(damaged)
        refused("_SUCCESS.json: damaged; remove it, then --resume", *call, "--resume")
    for _ in range(2):
        Path("out/_SUCCESS.json").unlink(missing_ok=True)
        assert run(*call, "--resume").stderr == "already complete: classified 3 of 3\n"
        assert (summary("out/_SUCCESS.json")["inputs"], summary("out/_SUCCESS.json")["resumed"]) == (3, 1)
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")} == parts
    assert Path("out/_rejected.jsonl").read_bytes() == rejected
    refused("out: 1 chunks of an earlier run are there; continue it with --resume", *call)
    for damaged in (b"", b"[]", b"{}", b'{"settings": 3}'):
        Path("out/_job.json").write_bytes(damaged)
        refused("_job.json: damaged", *call, "--resume")


def test_all_that_answers_depend_on_has_to_be_the_same() -> None:
    write_images(Path("p"), 1)
    Path("owl.txt").write_text("owl\n")
    bank = open_bundle(Path(os.environ["SAR_BUNDLE"])).bank
    set_class(bank, "red", threshold=0.5).save(Path("b.safetensors"))
    call = ("p", "--out", "out", "--classes", "owl.txt", "--bank", "b.safetensors")
    assert run(*call).exit_code == 0
    for change, name in (
        (("--only",), "only"),
        (("--top-k", "1"), "top_k"),
        (("--chunk-size", "3"), "chunk_size"),
        (("--explain",), "explain"),
        (("--unknown",), "unknown"),
        (("--embeddings=float16",), "embeddings"),
        (("--format", "jsonl"), "format"),
        (("p/000.png",), "sources"),
    ):
        refused(rf"\({name} was ", *call, *change, "--resume")
    assert run(*call, "--threads", "2", "--set", "image-timeout=3", "--batch-size", "1", "--resume").exit_code == 0
    Path("owl.txt").write_text("owl = an owl\n")
    refused(r"\(classes was ", *call, "--resume")
    Path("owl.txt").write_text("owl\n")
    for changed in (remove(bank, ["red"]), set_class(bank, "red", background=True)):
        changed.save(Path("b.safetensors"))
        refused(r"\(bank was ", *call, "--resume")


def test_a_bank_that_changes_while_a_run_starts_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(Path("p"), 1)
    bank, file = open_bundle(Path(os.environ["SAR_BUNDLE"])).bank, Path("b.safetensors")
    set_class(bank, "red", threshold=0.5).save(file)
    real = engine.begin

    def begin(*arguments: Any) -> Any:
        set_class(bank, "red", threshold=0.75).save(file)
        return real(*arguments)

    monkeypatch.setattr(engine, "begin", begin)
    result = run("p", "--out", "out", "--bank", str(file))
    assert (result.exit_code, Path("out").exists()) == (2, False)
    assert "b.safetensors: was changed since this run began; run again" in result.stderr


def test_a_run_goes_on_with_the_inputs_that_it_began_with() -> None:
    write_images(Path("p"), 5)
    call = ("p", "--out", "out", "--chunk-size", "2")
    assert run(*call).exit_code == 0
    for name in ("_SUCCESS.json", "_rejected.jsonl", "part-000001.parquet"):
        Path("out", name).unlink()
    for name in (".part-000001.parquet.0123abcd", "._SUCCESS.json.0123abcd"):  # of a run that was killed
        Path("out", name).touch()
    Path("p/000a.png").write_bytes(small_png(9))
    Path("p/003.png").unlink()
    assert run(*call, "--resume").exit_code == 1
    assert [Path(key).stem for key in keys()] == [f"00{n}" for n in range(5)]
    assert error_kinds() == [None, None, None, "unreadable", None]
    assert summary("out/_SUCCESS.json")["resumed"] == 2
    assert not [name for name in listing(Path("out")) if name.startswith(".")]


def test_an_outage_is_tried_again() -> None:
    Path("all.txt").write_text("p/000.png\np/gone.png\ns.tar\nt.parquet\np/001.png\n")
    write_images(Path("p"), 2)
    Path("t.parquet").write_bytes(b"PAR1 no")
    call = ("all.txt", "--out", "out")
    assert run(*call).exit_code == 1
    assert error_kinds() == [None, "unreadable", "source", "source", None]
    first = Path("out/part-000000.parquet").stat().st_mtime_ns
    write_tar(Path("s.tar"), {"x.png": small_png(8), "y.png": small_png(9)})
    assert run(*call, "--resume").exit_code == 1
    assert error_kinds() == [None, "unreadable", None, None, "source", None]
    write_parquet(Path("t.parquet"), {"image": [small_png(10)]})
    assert run(*call, "--resume").exit_code == 1
    assert error_kinds() == [None, "unreadable", None, None, None, None]
    assert keys()[2:5] == ["s.tar/x.png", "s.tar/y.png", "t.parquet#0"]
    assert run(*call, "--resume").stderr.startswith("already complete: ")
    assert Path("out/part-000000.parquet").stat().st_mtime_ns == first


def test_an_output_has_one_run_at_a_time(tmp_path: Path) -> None:
    write_images(Path("p"), 2)
    Path("link").symlink_to("out")
    with owned(Path("out/parts")):
        for out in ("out", "./out/", f"file://{tmp_path}/out", "link"):
            refused("another process is changing it", "p", "--out", out)


def test_a_full_disk_keeps_what_is_written() -> None:
    write_images(Path("p"), 40)
    call = ("p", "--out", "out", "--chunk-size", "20", "--embeddings=float32", "--format", "jsonl")
    with files_of_at_most(8000):
        result = run(*call)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert re.match("Error: out/part-00000.* cannot be written: File too large; 0 of 40 images are kept", result.stderr)
    assert not Path("out").exists()
    assert run(*call, "--resume").exit_code == 0
    assert len(read_rows(Path("out"))) == 40


def test_a_run_without_any_input_is_no_success() -> None:
    write_tar(Path("s.tar"), {"a.json": b"{}", "b.jxl": b""})
    result = run("s.tar", "--out", "out")
    assert result.exit_code == 1
    assert result.stderr == "classified 0 of 0; there is no image in what was named\n"
    write_parquet(Path("none.parquet"), {"image": pyarrow.array([], pyarrow.binary())})
    refused("none.parquet: no image in it", "none.parquet", "--out", "more")
