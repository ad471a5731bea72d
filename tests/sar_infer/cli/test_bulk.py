"""``sar-classify … --out``: options, refusals and what people see."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from support.bulk_runs import answered_here, refused, run
from support.many import read_rows, write_images, write_parquet

__all__ = ["answered_here"]
pytestmark = pytest.mark.usefixtures("here", "answered_here")


def test_jsonl_parts_and_classes() -> None:
    write_images(Path("p"), 3)
    Path("new.txt").write_text("owl\nowl\nzebra = zebra | striped horse\n")
    options = ("--format", "jsonl", "--classes", "new.txt", "--only")
    result = run("p", "--out", "out", *options)
    assert result.stderr.startswith("Warning: new.txt:2: class name 'owl' is already on line 1")
    rows = read_rows(Path("out"))
    assert {label for row in rows for label in row["labels"]} == {"owl", "zebra"}
    assert all(0 < row["unknown"] < 1 for row in rows)
    run("p", "--out", "none", *options, "--unknown", "--threshold", "0")
    assert [(row["label"], row["labels"]) for row in read_rows(Path("none"))] == 3 * [(None, [])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("gone.tar --out out", "gone.tar: no such file or folder"),
        ("p --resume", "--resume needs --out"),
        ("p --format parquet", "--format parquet needs --out"),
        ("p --out out --profile", "--profile and --out cannot be combined"),
        ("p --out out --format csv", "expected --format parquet or jsonl, got csv"),
        ("p --out out --format text", "expected --format parquet or jsonl, got text"),
        ("p --out s3://bucket/a.parquet", "expected a folder for parts"),
        ("p --out gs://bucket/a", "pip install '.\\[bulk\\]' gcsfs"),
        ("p --out http://x/a", "web servers are not"),
        ("p --out a.parquet", "a.parquet: expected a folder for parts, which pandas.*leave out .parquet, or write one"),
        ("p --out p/000.png", "p/000.png: is a file; name a folder"),
        ("p --out full", "not empty, and not the output of a bulk run"),
        ("s.tar", "s.tar: a tar shard, Parquet file, list or URL needs --out"),
        ("p s3://bucket/a.png", "s3://bucket/a.png: a tar shard, Parquet file, list or URL needs --out"),
        ("x" * 5000 + " --out out", "^Error: x+…$"),
        ("t.parquet --out out --column jpg", "no column 'jpg'; it has image"),
        ("p --out out --bundle gone", "gone: no such folder"),
        ("p --out out --coverage 0.9", "coverage 0.9"),
        ("p --out out --classes gone.txt", "no such class file"),
    ],
)
def test_refusals(arguments: str, message: str) -> None:
    write_images(Path("p"), 1)
    Path("full").mkdir()
    Path("full/thesis.doc").touch()
    write_parquet(Path("t.parquet"), {"image": [b""]})
    refused(message, *arguments.split())


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("pyarrow", "p --out a", r"Parquet needs pyarrow: pip install.*, or write --format jsonl"),
        ("pyarrow", "t.parquet --out a --format jsonl", "reading Parquet needs pyarrow"),
        ("fsspec", "memory://x --out a", r"needs a package: pip install '.\[bulk\]' in a clone"),
        ("ray", "p --out a --engine ray", r"needs Ray: pip install '.\[ray\]'"),
    ],
)
def test_a_missing_package_is_named(
    package: str, arguments: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(Path("p"), 1)
    write_parquet(Path("t.parquet"), {"image": [b""]})
    for name in [name for name in sys.modules if name.partition(".")[0] == package] + [package]:
        monkeypatch.setitem(sys.modules, name, None)
    refused(message, *arguments.split())


def test_names_of_files_reach_no_terminal_as_they_are() -> None:
    """A terminal would obey what they say."""
    folder = Path("p\x1b[31m")
    write_images(folder, 1)
    (folder / "e\x1b[2Jv\nil").write_bytes(b"no suffix")
    (folder / "linked\x1b[31m").symlink_to("..")
    (folder / "bad\x1b[31m.png").write_bytes(b"no image")
    for arguments in ((str(folder), "--out", "o\x1b[31m"), ("none\x1b[31m.jpg", "--out", "o")):
        lines = run(*arguments).stderr.splitlines()
        assert "\\x1b" in "".join(lines)
        assert all(map(str.isprintable, lines)), lines


def test_progress_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(Path("p"), 6)
    monkeypatch.setattr("sar_infer.bulk.progress._EVERY_LINE", 0)
    lines = run("p", "--out", "out", "--batch-size", "2", "--set", "progress=true").stderr.splitlines()
    line = r"6 of 6 done, 0 set aside, [\d.,]+/s, 0:00:00 left"
    assert re.fullmatch(line, lines[-2]), lines
    assert len(lines) == 5
