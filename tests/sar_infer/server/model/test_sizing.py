from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sar_infer.server.model import sizing
from sar_infer.server.model.sizing import Sizes, bodies_limit, memory_limit, sizes
from sar_infer.server.settings import Settings

Machine = Callable[..., None]
LARGE = 2**26
MIB, GIB = 2**20, 2**30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a function that gives this machine so many cores, bytes of memory, and perhaps a GPU."""

    def become(cores: int, memory: int = 2**40, *, gpu: bool = False) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}.get)
        monkeypatch.setattr(sizing, "is_accelerator", lambda device: device != "cpu" and gpu)

    return become


@pytest.mark.parametrize(
    ("cores", "workers", "threads"),
    [(1, 1, 1), (2, 2, 1), (3, 2, 1), (4, 2, 2), (8, 2, 4), (16, 4, 4), (64, 16, 4)],
)
def test_workers_and_threads_fill_the_cores(machine: Machine, cores: int, workers: int, threads: int) -> None:
    def shape(settings: Settings) -> tuple[object, ...]:
        made = sizes(settings, 1)
        return made.processes, made.workers, made.threads, made.max_batch

    machine(cores)
    assert shape(Settings(workers=None)) == (True, workers, threads, 1)
    assert shape(Settings(workers=1)) == (True, 1, cores, 1)
    assert shape(Settings(workers=None, threads=3)) == (True, workers, 3, 1)
    assert shape(Settings(workers=0)) == (False, 2, cores, 1)


@pytest.mark.parametrize(
    ("cores", "gib", "graph", "workers"),
    [(64, 2, 25, 2), (2, 2, 25, 2), (2, 1, 25, 1), (64, 8, 25, 13), (64, 64, 25, 16), (8, 4, 350, 2), (8, 2, 350, 1)],
)
def test_the_memory_has_room_for_the_largest_photo_in_each_worker(
    machine: Machine, cores: int, gib: int, graph: int, workers: int
) -> None:
    machine(cores, memory=2 * gib * GIB)  # of which the server takes half
    made = sizes(Settings(workers=None), graph * MIB)
    assert made.workers == workers
    bodies = bodies_limit(10 * MIB, gib * GIB)
    assert workers * made.memory + 2 * bodies + 256 * MIB <= gib * GIB  # all together, at their limits
    assert made.memory >= (128 + 2 * graph) * MIB + 8 * 50_000_000 or workers == 1
    asked = sizes(Settings(workers=4), graph * MIB)
    assert (asked.workers, asked.memory) == (4, (gib * GIB - 2 * bodies - 256 * MIB) // 4)


def test_batches_grow_with_the_graph_and_on_a_gpu(machine: Machine) -> None:
    machine(4)
    assert [sizes(Settings(workers=2), graph).max_batch for graph in (LARGE - 1, LARGE)] == [1, 8]
    assert sizes(Settings(workers=2, max_batch=5), LARGE).max_batch == 5
    machine(4, gpu=True)
    assert sizes(Settings(workers=None), 1) == Sizes(False, 2, 4, 32, decoders=4)
    assert sizes(Settings(workers=1, max_batch=5), LARGE).processes
    assert sizes(Settings(workers=None, device="cpu"), 1).workers == 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root folder in which a test can write /proc/self/cgroup."""
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_least_limit_above_a_process_counts(root: Path) -> None:
    machine = memory_limit(root)
    write(root / "proc/self/cgroup", "0::/pods/mine/leaf\n")
    write(root / "sys/fs/cgroup/pods/mine/leaf/memory.max", "max\n")
    write(root / "sys/fs/cgroup/pods/mine/memory.max", f"{64 * MIB}\n")
    write(root / "sys/fs/cgroup/pods/memory.max", f"{128 * MIB}\n")
    assert memory_limit(root) == 64 * MIB < machine


def test_the_limit_of_version_1_and_of_a_container_that_sees_its_own_root(root: Path) -> None:
    write(root / "proc/self/cgroup", "11:cpu,cpuacct:/docker/0a\n5:memory:/docker/0a\n0::/x\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{96 * MIB}\n")
    assert memory_limit(root) == 96 * MIB
    write(root / "sys/fs/cgroup/memory/docker/0a/memory.limit_in_bytes", f"{32 * MIB}\n")
    assert memory_limit(root) == 32 * MIB
    write(root / "sys/fs/cgroup/memory/docker/0a/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit(root) == 96 * MIB
