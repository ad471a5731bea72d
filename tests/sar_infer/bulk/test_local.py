from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import hanging
from support.bulk_runs import answered_here
from support.many import read_rows, small_png

from sar_infer import Classifier
from sar_infer.bulk import pool
from sar_infer.bulk.items import Flaw, Item, Piece
from sar_infer.bulk.outputs.job import WHOLE, BulkJob
from sar_infer.bulk.outputs.rows import JsonLines
from sar_infer.bulk.outputs.store import LocalFolder
from sar_infer.bulk.pool import BatchPool
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.sources import reader
from sar_infer.bulk.worker import WorkerOptions
from sar_infer.errors import BundleError, DeviceError

if sys.platform != "win32":
    import resource

__all__ = ["answered_here"]


class Bomb(bytes):
    """Kills the process that it is sent to."""

    def __reduce__(self) -> object:
        return os._exit, (9,)


@dataclass(frozen=True)
class Listed:
    """A unit of listed inputs that notes how far it was read."""

    number: int

    @property
    def identity(self) -> dict[str, int]:
        return {"inputs": self.number}

    @property
    def count(self) -> int:
        return len(INPUTS[self.number])

    def items(self) -> Iterator[Item]:
        for item in INPUTS[self.number]:
            READ.append(item.key)
            yield item


READ: list[str] = []
INPUTS: list[list[Item]] = []


def run(
    tmp_path: Path,
    bundle: Path,
    *units: list[Item],
    workers: int = 2,
    batch_size: int = 4,
    image_timeout: float = 60,
    form: JsonLines | None = None,
) -> list[list[dict]]:
    """The rows of each part."""
    INPUTS[:] = units
    READ.clear()
    WRITTEN.clear()
    job, progress = BulkJob({}, LocalFolder(tmp_path / "out"), WHOLE, ".jsonl"), Progress()
    options = WorkerOptions(str(bundle), image_timeout=image_timeout)
    with BatchPool(options, form or JsonLines(), workers) as answering:
        pieces = (Piece(number, Listed(number)) for number in range(len(INPUTS)))
        written = answering.write_parts(pieces, job, batch_size, progress)
    assert sorted(written.values()) == sorted(path.name for path in (tmp_path / "out").glob("part-*"))
    parts = [read_rows(path) for path in sorted((tmp_path / "out").glob("part-*"))]
    assert (progress.pieces, progress.inputs) == (len(units), sum(map(len, parts)))
    return parts


def good(*numbers: int) -> list[Item]:
    return [Item(str(number), small_png(number)) for number in numbers]


def test_a_part_for_every_piece_in_order(tmp_path: Path, bundle_path: Path) -> None:
    bad = Item("bad", Flaw("source", "gone"))
    parts = run(tmp_path, bundle_path, good(*range(9)), [], [bad], [*good(9), bad])
    assert [[row["key"] for row in rows] for rows in parts] == [[*map(str, range(9))], [], ["bad"], ["9", "bad"]]
    assert {row["label"] is None for rows in parts for row in rows if row["key"] != "bad"} == {False}


def test_images_that_kill_a_process_are_found_and_set_aside(
    tmp_path: Path, bundle_path: Path, classifier: Classifier
) -> None:
    bombs = (Item("bomb", Bomb()), Item("boom", Bomb()))
    inputs = [*good(0, 1), bombs[0], *good(2, 3, 4), bombs[1], *good(5)]
    (rows,) = run(tmp_path, bundle_path, inputs, workers=1, batch_size=2)
    assert [row["key"] for row in rows] == [item.key for item in inputs]
    assert {row["key"]: row["error_kind"] for row in rows if row["error"]} == {"bomb": "crash", "boom": "crash"}
    labels = [prediction.predictions[0].label for prediction in classifier.classify([small_png(n) for n in range(6)])]
    assert [row["label"] for row in rows if not row["error"]] == labels


class Unreadable(bytes):
    """Raises in the process that it is sent to, which lives on."""

    def __reduce__(self) -> object:
        return _out_of_memory, ()


def _out_of_memory() -> None:
    raise MemoryError("there is none")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no limit there")
def test_images_that_hang_are_tried_twice_and_no_more(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With whatever was on the way beside them; each further try would take as long as the limit."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    hanging.plant(tmp_path / "site", monkeypatch, hanging.hang)
    inputs = [*good(*range(5)), Item("hangs", hanging.HANGS), *good(*range(5, 16)), Item("bomb", Bomb()), *good(16)]
    (rows,) = run(tmp_path, bundle_path, inputs, workers=1, batch_size=8, image_timeout=1)
    assert [row["key"] for row in rows] == [item.key for item in inputs]
    assert {row["key"]: (row["error_kind"], row["error"]) for row in rows if row["error"]} == {
        "hangs": ("timeout", "took more than 1 s to decode (--image-timeout)"),
        "bomb": ("crash", "the process that read it died: memory, or its decoder"),
    }
    died = 2 + 4  # of the one twice; of the other's batch of three, twice, its half, alone
    assert len((tmp_path / "starts").read_text()) == 1 + died


def test_an_image_that_fails_otherwise_is_set_aside(tmp_path: Path, bundle_path: Path) -> None:
    (rows,) = run(tmp_path, bundle_path, [*good(0, 1), Item("bad", Unreadable()), *good(*range(2, 9))], workers=1)
    assert [row["key"] for row in rows if row["error"]] == ["bad"]
    assert len(rows) == 10


def test_workers_that_fail_at_everything_end_the_run(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging.plant(tmp_path / "site", monkeypatch, hanging.fail)
    with pytest.raises(DeviceError, match="no rows today"):
        run(tmp_path, bundle_path, [Item("bad", Bomb())], workers=1)


@dataclass(frozen=True)
class Watched(JsonLines):
    """Notes the rows of each batch that is written, and how far the inputs had been read by then; workers do not."""

    def write(self, path: Path, packed: Iterable[bytes]) -> None:
        def watched() -> Iterator[bytes]:
            for some in packed:
                WRITTEN.append((some.count(b"\n"), len(READ)))
                yield some

        super().write(path, watched())

    def __reduce__(self) -> object:
        return JsonLines, ()


WRITTEN: list[tuple[int, int]] = []


def most_ahead(size: int) -> int:
    """Inputs that were read and not yet written, at most, in batches of this size."""
    return max(read - size * number for number, (_, read) in enumerate(WRITTEN, 1))


@pytest.mark.usefixtures("answered_here")
def test_no_more_is_read_than_is_worked_on(tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, bundle_path, good(*range(60)), workers=1, batch_size=2, form=Watched())
    assert most_ahead(2) <= 4 * 2
    monkeypatch.setattr(pool, "_AHEAD_BYTES", len(small_png(0)))
    run(tmp_path / "small", bundle_path, good(*range(10)), workers=2, batch_size=2, form=Watched())
    assert most_ahead(2) <= 2


@pytest.mark.usefixtures("answered_here")
def test_a_batch_of_large_images_is_cut_short(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_BATCH_BYTES", 2 * max(len(small_png(number)) for number in range(9)))
    inputs = [*good(*range(5)), Item("flaw", Flaw("source", "gone")), *good(*range(5, 9))]
    (rows,) = run(tmp_path, bundle_path, inputs, form=Watched())
    assert [row["key"] for row in rows] == [*map(str, range(5)), "flaw", *map(str, range(5, 9))]
    sizes = [size for size, _ in WRITTEN]
    assert sum(sizes) == 10
    assert max(sizes) <= 4
    assert min(sizes[:-1]) >= 2
    assert 3 in sizes


def test_a_bundle_that_workers_cannot_open(tmp_path: Path, bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match="missing field"):
        run(tmp_path, bundle_copy, good(1))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_machine_that_starts_no_more_processes(tmp_path: Path, bundle_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(free := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))  # enough for a file, not for a pipe
    try:
        with pytest.raises(DeviceError, match="Too many open files"):
            run(tmp_path, bundle_path, good(1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
