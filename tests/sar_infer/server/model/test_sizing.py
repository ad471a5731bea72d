from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sar_infer.server.model import sizing
from sar_infer.server.model.sizing import Sizes, bodies_limit, decode_memory, memory_limit, resident, sizes
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
        monkeypatch.setattr(sizing, "expects_cuda", lambda device: device != "cpu" and gpu)

    return become


@pytest.mark.parametrize(
    ("cores", "workers", "threads"),
    [(1, 1, 1), (2, 2, 1), (3, 2, 1), (4, 2, 2), (8, 2, 4), (16, 4, 4), (64, 16, 4)],
)
def test_workers_and_threads_fill_the_cores(machine: Machine, cores: int, workers: int, threads: int) -> None:
    machine(cores)
    assert sizes(Settings(workers=None), 1) == Sizes(True, workers, threads, 1)
    assert sizes(Settings(workers=1), 1) == Sizes(True, 1, cores, 1)
    assert sizes(Settings(workers=None, threads=3), 1) == Sizes(True, workers, 3, 1)
    assert sizes(Settings(workers=0), 1) == Sizes(False, 2, cores, 1)


@pytest.mark.parametrize(("graph", "workers"), [(50, 2), (51, 1), (100, 1), (1000, 1)])
def test_no_more_copies_of_the_encoder_than_the_memory_takes(machine: Machine, graph: int, workers: int) -> None:
    machine(4, memory=800)
    assert sizes(Settings(workers=None), graph) == Sizes(True, workers, 4 // workers, 1)
    assert sizes(Settings(workers=2), graph) == Sizes(True, 2, 2, 1)  # asked for


@pytest.mark.parametrize(
    ("settings", "graph", "threads"),
    [
        (Settings(workers=2), LARGE, 4),
        (Settings(workers=2), LARGE - 1, 0),
        (Settings(workers=2), LARGE + 1, 0),
        (Settings(workers=4), LARGE, 0),
        (Settings(workers=2, threads=1), LARGE, 0),
        (Settings(workers=1), LARGE, 0),
        (Settings(workers=0), LARGE, 0),
    ],
    ids=["large", "small", "no memory", "four copies", "threads given", "a worker has all", "one process"],
)
def test_a_lone_image_has_all_cores_with_a_large_graph(
    machine: Machine, settings: Settings, graph: int, threads: int
) -> None:
    machine(4, memory=2 * 8 * LARGE)
    assert sizes(settings, graph).alone == threads


def test_batches_grow_with_the_graph_and_on_a_gpu(machine: Machine) -> None:
    machine(4)
    assert [sizes(Settings(workers=2), graph).max_batch for graph in (LARGE - 1, LARGE)] == [1, 8]
    assert sizes(Settings(workers=2, max_batch=5), LARGE).max_batch == 5
    machine(4, gpu=True)
    assert sizes(Settings(workers=None), 1) == Sizes(False, 2, 4, 32)
    assert sizes(Settings(workers=1, max_batch=5), LARGE) == Sizes(True, 1, 4, 5)
    assert sizes(Settings(workers=None, device="cpu"), 1) == Sizes(True, 2, 2, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root folder in which a test can write /proc/self/cgroup."""
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_least_limit_above_a_process_counts(root: Path) -> None:
    assert not memory_limit(root)[1]
    write(root / "proc/self/cgroup", "0::/pods/mine/leaf\n")
    write(root / "sys/fs/cgroup/pods/mine/leaf/memory.max", "max\n")
    write(root / "sys/fs/cgroup/pods/mine/memory.max", f"{64 * MIB}\n")
    write(root / "sys/fs/cgroup/pods/memory.max", f"{128 * MIB}\n")
    assert memory_limit(root) == (64 * MIB, True)


def test_the_limit_of_version_1_and_of_a_container_that_sees_its_own_root(root: Path) -> None:
    write(root / "proc/self/cgroup", "11:cpu,cpuacct:/docker/0a\n5:memory:/docker/0a\n0::/x\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{96 * MIB}\n")
    assert memory_limit(root) == (96 * MIB, True)
    write(root / "sys/fs/cgroup/memory/docker/0a/memory.limit_in_bytes", f"{32 * MIB}\n")
    assert memory_limit(root) == (32 * MIB, True)
    write(root / "sys/fs/cgroup/memory/docker/0a/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit(root) == (96 * MIB, True)


def test_images_get_what_the_limit_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = (64 * GIB, True)
    monkeypatch.setattr(sizing, "memory_limit", lambda: limit)
    assert bodies_limit(10 * MIB) == 320 * MIB
    left = 64 * GIB - resident("self") - 2 * 320 * MIB - 8 * GIB
    assert decode_memory(Settings()) == pytest.approx(left, abs=32 * MIB)
    limit = (64 * GIB, False)
    assert decode_memory(Settings()) == 32 * GIB
    limit = (128 * MIB, True)
    assert decode_memory(Settings()) == 64 * MIB
    assert decode_memory(Settings(decode_memory=5)) == 5
