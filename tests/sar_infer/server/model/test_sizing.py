from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sar_infer._arrays import Floats
from sar_infer.server.model.sizing import Sizes, in_processes, measured, threads_alone, workers_and_threads
from sar_infer.server.settings import Settings

CPU = "CPUExecutionProvider"
PIXELS = np.zeros((3, 2, 2), dtype=np.float32)
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a function that gives this machine so many cores and bytes of memory."""

    def become(cores: int, memory: int = 2**40) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}.get)

    return become


@pytest.mark.parametrize(
    ("cores", "wanted"), [(1, (1, 1)), (2, (2, 1)), (3, (2, 1)), (4, (2, 2)), (8, (2, 4)), (16, (4, 4)), (64, (16, 4))]
)
def test_workers_and_threads_fill_the_cores(machine: Machine, cores: int, wanted: tuple[int, int]) -> None:
    machine(cores)
    assert workers_and_threads(Settings()) == wanted
    assert workers_and_threads(Settings(workers=1)) == (1, cores)
    assert workers_and_threads(Settings(threads=3)) == (wanted[0], 3)


@pytest.fixture
def clocked(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[int], float]], Callable[[Sequence[Floats]], Floats]]:
    """Return an encoder that takes so many seconds for a batch of n, on a clock of its own."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def make(seconds: Callable[[int], float]) -> Callable[[Sequence[Floats]], Floats]:
        def encode(batch: Sequence[Floats]) -> Floats:
            now[0] += seconds(len(batch))
            return np.zeros((len(batch), 4), dtype=np.float32)

        return encode

    return make


@pytest.mark.parametrize(
    ("provider", "seconds", "batch"),
    [
        (CPU, lambda n: n, 1),
        (CPU, lambda n: 1.1 * n if n > 1 else 1, 1),
        (CPU, lambda n: 0.5 + 0.5 * n, 8),
        (CPU, lambda n: n * {1: 1.0, 2: 0.8, 4: 0.75, 8: 0.74}[n], 4),
        ("CUDAExecutionProvider", lambda n: 1 + 0.01 * n, 32),
    ],
    ids=["linear", "worse", "overhead", "levels off", "gpu"],
)
def test_a_batch_grows_while_that_pays(
    clocked: Callable[..., object], provider: str, seconds: object, batch: int
) -> None:
    sizes = measured(Settings(workers=2, decoders=0), provider, clocked(seconds), PIXELS)  # type: ignore[arg-type]
    assert sizes == Sizes(2, batch, 0)


@pytest.mark.parametrize(
    ("settings", "graph", "wanted"),
    [
        (Settings(processes=None), 50, True),
        (Settings(processes=None), 51, False),
        (Settings(processes=None, workers=1), 100, True),
        (Settings(processes=None, device="cuda"), 1000, True),
        (Settings(processes=True), 1000, True),
        (Settings(processes=False), 1, False),
    ],
    ids=["fits", "too large", "one copy", "gpu", "forced", "forbidden"],
)
def test_workers_are_processes_where_copies_of_the_encoder_fit(
    machine: Machine, settings: Settings, graph: int, wanted: bool
) -> None:
    machine(4, memory=800)
    assert in_processes(settings, graph) is wanted


@pytest.mark.parametrize(
    ("settings", "graph", "wanted"),
    [
        (Settings(), 100, 4),
        (Settings(threads=1), 1, 0),
        (Settings(workers=1), 1, 0),
        (Settings(), 101, 0),
        (Settings(workers=2, processes=True), 50, 4),
        (Settings(workers=2, processes=True), 51, 0),
    ],
    ids=["fits", "threads given", "a worker has all", "too large", "two copies", "two copies, too large"],
)
def test_the_threads_of_a_lone_image(machine: Machine, settings: Settings, graph: int, wanted: int) -> None:
    machine(4, memory=800)
    assert threads_alone(settings, graph) == wanted


@pytest.mark.parametrize(
    ("provider", "each", "alone", "wanted"),
    [
        (CPU, 0.1, 0.05, 4),
        (CPU, 0.1, 0.09, 0),
        (CPU, 0.015, 0.008, 0),
        (CPU, 0.012, None, 0),
        ("CUDAExecutionProvider", 0.1, 0.05, 0),
    ],
    ids=["pays", "a tenth", "7 ms", "cannot pay", "gpu"],
)
def test_a_second_encoder_is_used_where_it_pays(
    clocked: Callable[..., object],
    machine: Machine,
    provider: str,
    each: float,
    alone: float,
    wanted: int,
) -> None:
    machine(4)
    encode, second = clocked(lambda n: each * n), clocked(lambda n: alone * n)
    assert measured(Settings(workers=4, max_batch=1), provider, encode, PIXELS, 4, second).alone == wanted  # type: ignore[arg-type]


def test_sizes_in_the_settings_are_not_measured(machine: Machine) -> None:
    machine(6)
    unused = pytest.fail
    assert measured(Settings(workers=3, max_batch=5), CPU, unused, PIXELS) == Sizes(3, 5, 0)
    for settings, decoders in ((Settings(max_batch=5, processes=None), 6), (Settings(max_batch=5, processes=False), 0)):
        assert measured(settings, "CUDAExecutionProvider", unused, PIXELS) == Sizes(2, 5, decoders)
    assert measured(Settings(workers=3, max_batch=5, processes=None), CPU, unused, PIXELS) == Sizes(3, 5, 2)
    assert measured(Settings(max_batch=5, decoders=1), CPU, unused, PIXELS) == Sizes(2, 5, 1)
    on_gpu = Settings(max_batch=5, processes=None, device="cuda")
    assert workers_and_threads(on_gpu) == (1, 6)
    assert measured(on_gpu, "CUDAExecutionProvider", unused, PIXELS, graph=2**25) == Sizes(1, 5, 6)
    assert measured(on_gpu, CPU, lambda batch: np.zeros((len(batch), 4)), PIXELS, graph=2**25) == Sizes(1, 5, 2)
    machine(64)
    assert measured(Settings(max_batch=5, processes=None), "CUDAExecutionProvider", unused, PIXELS) == Sizes(2, 5, 8)


@pytest.mark.parametrize(("graph", "batch"), [(2**25, 1), (2**26, 8)])
def test_the_batch_of_worker_processes_is_tried_and_not_measured(graph: int, batch: int) -> None:
    tried: list[int] = []

    def encode(images: Sequence[Floats]) -> Floats:
        tried.append(len(images))
        return np.zeros((len(images), 4), np.float32)

    assert measured(Settings(workers=2), CPU, encode, PIXELS, graph=graph) == Sizes(2, batch, 0)
    assert measured(Settings(workers=2, max_batch=3), CPU, encode, PIXELS, graph=graph) == Sizes(2, 3, 0)
    assert tried == [batch]
