"""Runs from and into storage, which is fsspec's memory here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.bulk_runs import answered_here, run
from support.many import read_rows, small_png, write_parquet, write_tar

__all__ = ["answered_here"]


@pytest.fixture
def storage() -> Iterator[MemoryFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def rows(system: MemoryFileSystem, folder: str) -> list[dict]:
    parts = sorted(system.glob(f"{folder}/part-*"))
    return [row for part in parts for row in pyarrow.parquet.read_table(system.open(part)).to_pylist()]


@pytest.mark.usefixtures("answered_here")
def test_a_run_from_and_into_a_bucket(here: Path, storage: MemoryFileSystem) -> None:
    for number in range(3):
        storage.pipe_file(f"/bucket/photos/{number}.png", small_png(number))
        shard = write_tar(here / "s.tar", {"x.png": small_png(10 + number)})
        storage.put_file(str(shard), f"/bucket/shards/{number}.tar")
    storage.put_file(str(write_parquet(here / "t.parquet", {"image": [small_png(20)]})), "/bucket/t.parquet")
    storage.pipe_file("/bucket/all.txt", b"memory://bucket/photos/1.png\nmemory://bucket/gone.png\n")
    sources = ["photos", "shards/*.tar", "t.parquet", "all.txt"]
    arguments = [*(f"memory://bucket/{name}" for name in sources), "--out", "memory://bucket/answers"]
    result = run(*arguments, "--chunk-size", "2")
    assert result.exit_code == 1
    assert result.stderr.endswith("1 set aside, see memory://bucket/answers/_rejected.jsonl\n")
    written = rows(storage, "/bucket/answers")
    assert [row["key"] for row in written] == [
        *(f"memory:///bucket/photos/{n}.png" for n in range(3)),
        *(f"memory:///bucket/shards/{n}.tar/x.png" for n in range(3)),
        "memory://bucket/t.parquet#0",
        "memory://bucket/photos/1.png",
        "memory://bucket/gone.png",
    ]
    assert [row["error_kind"] for row in written] == [None] * 8 + ["unreadable"]
    storage.rm_file("/bucket/answers/part-000003.parquet")
    assert run(*arguments, "--chunk-size", "2", "--resume").exit_code == 1
    assert rows(storage, "/bucket/answers") == written
    counts = json.loads(storage.cat_file("/bucket/answers/_SUCCESS.json"))["summary"]
    assert (counts["inputs"], counts["chunks"], counts["resumed"]) == (9, 7, 6)


@pytest.mark.usefixtures("answered_here")
def test_storage_that_refuses_and_a_full_temporary_folder_are_named(
    here: Path, storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a.png").write_bytes(small_png(1))

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no such bucket")

    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    result = run("a.png", "--out", "memory://bucket/answers")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert re.match("Error: memory://bucket/answers/_\\w+.jsonl: cannot be written: no such bucket", result.stderr)
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    result = run("a.png", "--out", "memory://bucket/answers")
    assert re.match("Error: the folder for temporary files .* set TMPDIR to another", result.stderr), result.stderr


@pytest.mark.usefixtures("answered_here")
def test_a_read_that_fails_is_an_outage(here: Path, storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of storage retry; what they give up is tried again by ``--resume``."""
    storage.pipe_file("/bucket/a.png", small_png(1))
    storage.pipe_file("/bucket/b.png", small_png(2))
    real = MemoryFileSystem.cat_file

    def fail(self: MemoryFileSystem, path: str, **arguments: int) -> bytes:
        if path.endswith("b.png"):
            raise ConnectionResetError("reset by peer")
        return real(self, path, **arguments)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "cat_file", fail)
        assert run("memory://bucket", "--out", "out").exit_code == 1
    assert [row["error"] for row in read_rows(here / "out")] == [None, "cannot be read: reset by peer"]
    assert run("memory://bucket", "--out", "out", "--resume").exit_code == 0
    assert [row["error"] for row in read_rows(here / "out")] == [None, None]
