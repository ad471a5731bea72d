from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from support import hanging
from support.many import small_png, write_parquet, write_tar

from sar_infer.bulk.items import Broken, Flaw, Item, Unit
from sar_infer.bulk.sources import reader
from sar_infer.bulk.sources.listing import InputSources, Paths
from sar_infer.bulk.sources.reader import Reader
from sar_infer.bulk.sources.row_groups import row_groups
from sar_infer.bulk.sources.tars import TarShard
from sar_infer.errors import DeviceError

LOCATIONS, ROW_GROUPS = "sar_infer.bulk.locations", "sar_infer.bulk.sources.row_groups"


def batches(some: Reader, unit: Unit, size: int = 4) -> tuple[list[list[Item]], int]:
    """All batches of a unit, and how many files in it are no images."""
    others: list[int] = []
    return [list(batch) for batch in some.batches(unit, size, others.append)], sum(others)


def shard(path: Path, count: int) -> TarShard:
    return TarShard.open(str(write_tar(path, {f"{number}.png": small_png(number) for number in range(count)})))


def flaw_of(item: Item) -> str:
    assert isinstance(item.source, Flaw)
    assert item.source.kind == "source"
    return item.source.reason


def test_a_unit_is_cut_into_the_same_batches_wherever_it_is_read(tmp_path: Path) -> None:
    members = {f"{n}.png": small_png(n) for n in range(9)}
    tar = write_tar(tmp_path / "s.tar", {**members, "a.json": b"{}", "b.txt": b""})
    parquet = write_parquet(tmp_path / "t.parquet", {"image": [*members.values()]}, rows_of_group=9)
    images = tuple(str(tmp_path / name) for name in members)
    with Reader() as some:
        units = (TarShard.open(str(tar)), row_groups(str(parquet), "image", None)[0], Paths(images))
        (in_tar, others), (in_parquet, none), (paths, _) = [batches(some, unit) for unit in units]
        assert batches(some, Broken("gone.tar", "gone")) == ([[Item("gone.tar", Flaw("source", "gone"))]], 0)
        assert batches(some, shard(tmp_path / "empty.tar", 0))[0][0][0].key == str(tmp_path / "empty.tar")
        assert batches(some, Paths(())) == ([[]], 0)
    assert (others, none) == (2, 0)
    assert [len(batch) for batch in paths] == [4, 4, 1]
    assert [[item.source for item in batch] for batch in in_parquet] == [[item.source for item in b] for b in in_tar]
    flat = [item for batch in in_tar for item in batch]
    assert flat == [Item(f"{tar}/{name}", content) for name, content in members.items()]
    assert [item for batch in in_parquet for item in batch] == [Item(f"{parquet}#{n}", small_png(n)) for n in range(9)]


@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_a_crash_costs_the_rest_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    hanging.plant(tmp_path / "site", monkeypatch, hanging.trap, LOCATIONS)
    contents = [os.urandom(100_000) for _ in range(60)]
    path, after = tmp_path / f"crash-4000000.{suffix}", shard(tmp_path / "after.tar", 2)
    if suffix == "tar":
        unit: Unit = TarShard.open(str(write_tar(path, {f"{n}.png": data for n, data in enumerate(contents)})))
    else:
        table = pyarrow.table({"image": contents})
        pyarrow.parquet.write_table(table, path, use_dictionary=False, write_batch_size=1)
        (unit,) = row_groups(str(path), "image", None)
    with Reader() as some:
        *whole, (last,) = batches(some, unit)[0]
        assert len(batches(some, after)[0][0]) == 2
    rows = [item.source for batch in whole for item in batch]
    assert 10 < len(rows) < 40
    assert rows == contents[: len(rows)]
    assert last.key == str(path)
    what_is_left = "the rest cannot be read" if suffix == "tar" else f"row {len(rows)} on cannot be read"
    died = f"the process that read it died (exit code {-signal.SIGABRT}): memory, or a damaged file"
    assert flaw_of(last) == f"{what_is_left}: {died}"


def test_a_crash_in_a_footer_costs_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging.plant(tmp_path / "site", monkeypatch, hanging.trap, LOCATIONS)
    sound = write_parquet(tmp_path / "t.parquet", {"image": [small_png(n) for n in range(3)]})
    crash = tmp_path / f"crash-{sound.stat().st_size - 10}.parquet"
    crash.write_bytes(sound.read_bytes())
    first, second = InputSources((str(sound), str(crash))).pieces()
    assert first.unit.count == 3
    assert isinstance(second.unit, Broken)
    assert "the process that read it died" in second.unit.reason


def test_a_read_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging.plant(tmp_path / "site", monkeypatch, hanging.trap, LOCATIONS)
    monkeypatch.setattr(reader, "_LONGEST", 3.0)
    path = tmp_path / "hang-100000.tar"
    write_tar(path, {f"{number}.png": bytes(10_000) for number in range(20)})
    after = shard(tmp_path / "after.tar", 2)
    with Reader() as some:
        *whole, (last,) = batches(some, TarShard.open(str(path)))[0]
        assert len(batches(some, after)[0][0]) == 2
    assert [len(batch) for batch in whole] == [4, 4]
    assert flaw_of(last) == "the rest cannot be read: reading took more than 3 s"


def test_only_the_file_that_is_open_is_blamed_for_a_process_that_was_killed(tmp_path: Path) -> None:
    first, second = shard(tmp_path / "a.tar", 9), shard(tmp_path / "b.tar", 2)
    others = set(multiprocessing.active_children())

    def kill() -> None:
        (process,) = set(multiprocessing.active_children()) - others
        process.kill()
        process.join()

    with Reader() as some:
        half_read = some.batches(first, 4, lambda _: None)
        assert len(next(half_read)) == 4
        kill()
        (last,) = next(half_read)
        assert (last.key, flaw_of(last)) == (
            str(tmp_path / "a.tar"),
            "the rest cannot be read: the process that read it was killed",
        )
        whole = batches(some, second)
        kill()
        assert batches(some, second) == whole
    assert [len(batch) for batch in whole[0]] == [2]


@pytest.mark.skipif(sys.platform != "linux", reason="no such limit elsewhere")
def test_a_value_for_which_there_is_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging.plant(tmp_path / "site", monkeypatch, hanging.starve, ROW_GROUPS)
    path = tmp_path / "t.parquet"
    table = pyarrow.table({"image": [b"small", bytes(200 * 2**20), b"another"]})
    plain = {"use_dictionary": False, "write_statistics": False}  # which would take seconds
    pyarrow.parquet.write_table(table, path, compression="zstd", row_group_size=1, **plain)
    units = row_groups(str(path), "image", None)
    with Reader() as some:
        ((first,),), ((second,),), ((third,),) = (batches(some, unit)[0] for unit in units)
    assert (first.source, third.source) == (b"small", b"another")
    assert second.key == str(path)
    assert flaw_of(second).startswith("row 1 on cannot be read: ")


def test_a_reader_that_cannot_start_is_no_flaw_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging.plant(tmp_path / "site", monkeypatch, hanging.die, "sar_infer.bulk.sources.reader")
    unit = shard(tmp_path / "s.tar", 1)
    with Reader() as some, pytest.raises(DeviceError, match="no process can start that reads files: .*exit code 7"):
        batches(some, unit)
