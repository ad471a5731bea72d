"""Processes that answer chunks, and what crashes, hangs and fails in them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support import hanging
from support.bulk_runs import answered_here
from support.many import read_rows, small_png, write_images, write_parquet, write_tar

from sar_infer import Classifier
from sar_infer.bulk import chunks, engine
from sar_infer.bulk.containers import Flaw, Item
from sar_infer.bulk.engine import run_local
from sar_infer.bulk.job import Job
from sar_infer.bulk.listing import InputSources
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.rows import Columns, JsonLines
from sar_infer.bulk.store import LocalFolder
from sar_infer.bulk.worker import WorkerOptions
from sar_infer.errors import BundleError, DeviceError

__all__ = ["answered_here"]
needs_timers = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no limit there")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(
    bundle: Path, *sources: str, workers: int = 1, batch_size: int = 4, image_timeout: float = 60, chunk_size: int = 100
) -> list[list[dict]]:
    """The rows of each part."""
    job, progress = Job({}, LocalFolder(Path("out")), JsonLines(Columns())), Progress()
    job.begin(InputSources(sources, chunk_size=chunk_size), lambda _: None, resume=False)
    options = WorkerOptions(str(bundle), image_timeout=image_timeout, batch_size=batch_size)
    run_local(job, job.chunks(), options, workers, progress)
    parts = [read_rows(path) for path in sorted(Path("out").glob("part-*"))]
    assert progress.inputs == progress.kept == sum(map(len, parts))
    return parts


def keys(rows: list[dict]) -> list[str]:
    return [Path(row["key"]).name for row in rows]


def test_a_part_for_every_chunk(bundle_path: Path) -> None:
    write_images(Path("p"), 9)
    write_tar(Path("s.tar"), {"a.json": b""})
    Path("all.txt").write_text("p/000.png\ngone.tar\np/001.png\n")
    parts = run(bundle_path, "p", "s.tar", "all.txt", workers=2, chunk_size=5)
    assert [keys(rows) for rows in parts[:3]] == [
        [f"00{n}.png" for n in range(5)],
        [f"00{n}.png" for n in range(5, 9)],
        [],
    ]
    assert [path.name for path in sorted(Path("out").glob("part-*"))][-1] == "part-000005.jsonl"
    assert Path("out/part-000004-outage.jsonl").is_file()


@needs_timers
def test_images_that_kill_or_hang_a_process_are_found_and_set_aside(
    bundle_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARTS", str(Path("starts").absolute()))
    hanging.plant(Path("site").absolute(), monkeypatch, hanging.hang)
    members = {f"{n}.png": small_png(n) for n in range(12)} | {"5.png": hanging.HANGS, "9.png": hanging.KILLS}
    (rows,) = run(bundle_path, str(write_tar(Path("s.tar"), members)), batch_size=8, image_timeout=1)
    assert keys(rows) == list(members)
    assert {Path(row["key"]).name: (row["error_kind"], row["error"]) for row in rows if row["error"]} == {
        "5.png": ("timeout", "took more than 1 s to decode (image-timeout)"),
        "9.png": ("crash", "the process that read it died: memory, or its decoder"),
    }
    assert [path.name for path in Path("out").glob("part-*")] == ["part-000000-outage.jsonl"]
    expected = classifier.classify([small_png(n) for n in range(12) if n not in (5, 9)])
    assert [row["label"] for row in rows if not row["error"]] == [result.predictions[0].label for result in expected]
    assert len(Path("starts").read_text()) == 1 + 2 + 2  # each of them once among others and once alone


def test_workers_that_fail_at_everything_end_the_run(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(Path("p"), 1)
    hanging.plant(Path("site").absolute(), monkeypatch, hanging.fail)
    with pytest.raises(DeviceError, match="no rows today"):
        run(bundle_path, "p")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no core dumps, no pause")
@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
@pytest.mark.parametrize("kind", ["crash", "hang"])
def test_a_file_that_crashes_or_hangs_its_reader_costs_its_rest(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str
) -> None:
    monkeypatch.setattr(engine, "_LONGEST", 2.0)
    hanging.plant(Path("site").absolute(), monkeypatch, hanging.trap, "sar_infer.bulk.locations")
    images = [small_png(n) for n in range(4)]
    if suffix == ".tar":
        file, at = write_tar(Path("s.tar"), {f"{n}.png": data for n, data in enumerate(images)}), 512 * 30
    else:
        file = write_parquet(Path("s.parquet"), {"image": images}, rows_of_group=4)
        at = 100
    file = file.rename(f"{kind}-{at}{suffix}")
    good = write_images(Path("p"), 2)
    parts = run(bundle_path, str(file), "p")
    assert parts[0][-1]["key"] == str(file)
    assert parts[0][-1]["error_kind"] == "source"
    assert all(row["error"] is None for row in parts[0][:-1])
    assert keys(parts[1]) == [path.name for path in good]


def test_a_batch_of_large_images_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_BATCH_BYTES", 10)
    items = [Item("a", b"12345"), Item("b", b"123456"), Item("c", Flaw("source", "x")), Item("d", "p"), Item("e", b"")]
    assert [[item.key for item in batch] for batch in chunks.batches(items, 2)] == [["a", "b"], ["c", "d"], ["e"]]
    assert [len(batch) for batch in chunks.batches(items, 4)] == [2, 3]


def test_a_bundle_that_workers_cannot_open(bundle_copy: Path) -> None:
    write_images(Path("p"), 1)
    (bundle_copy / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match="expected schema_version 1"):
        run(bundle_copy, "p")
    assert not [*Path("out").glob("part-*")]
