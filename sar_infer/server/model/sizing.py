"""Sizes that the settings leave open: threads and batches are measured, memory is derived from what the process has."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_infer._arrays import Floats
from sar_infer.encoders.sessions import expects_cuda, usable_cores
from sar_infer.server.model.encoding import Encode
from sar_infer.server.settings import Settings

_LARGEST = {"CPUExecutionProvider": 8}
_LARGEST_ELSEWHERE = 32
_WORTH = 0.95
_LARGE_GRAPH = 2**26
"""Bytes from which a graph counts as large: its weights do not stay in the cache, so they are read once a batch."""
_BATCH, _BATCH_OF_LARGE_GRAPH = 1, 8
"""Images that a worker process encodes together; with a small graph more save no time, and take memory."""
_ALONE_WORTH, _ALONE_SECONDS = 0.8, 0.01
_COPIES = 8
"""One part in so many of the memory is for the copies of the encoder in worker processes; as much again is for second
encoders, which use all cores."""
_DECODERS, _MOST_DECODERS = 2, 8
"""Processes that decode for an encoder on the CPU, which is slower than they are, and for one elsewhere.

A process takes 30 MiB, and an image up to 400 MB while it is decoded.
"""
_LEAST_MEMORY = 64 * 2**20
_LIMIT_FILES = {"": "memory.max", "memory": "memory.limit_in_bytes"}
"""Files with a cgroup's limit, by the controller that /proc/self/cgroup names: version 2, and version 1."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of an engine.

    Attributes:
        workers: Batches that run at once.
        max_batch: Images of a batch at most.
        decoders: Processes that decode ahead of the workers; with 0 the workers decode.
        alone: Threads for an image beside which nothing runs, by an encoder of its own; 0: it has none.
    """

    workers: int
    max_batch: int
    decoders: int
    alone: int = 0


def workers_and_threads(settings: Settings) -> tuple[int, int]:
    """Return how many batches run at once, and the threads of each, so that together they use all cores.

    Batches of one thread waste nothing, but a lone image then waits for a single core; so at most a quarter of the
    cores are workers, where there are many. ``threads_alone`` says what a lone image may have. A GPU has one worker.
    """
    cores = usable_cores()
    workers = settings.workers or (1 if _on_gpu(settings) else min(cores, max(2, cores // 4)))
    return workers, settings.threads or max(1, cores // workers)


def in_processes(settings: Settings, graph: int) -> bool:
    """Return whether images are decoded and encoded in processes of their own.

    By default they are, unless the copies of the encoder, of ``graph`` bytes each, take more than an eighth of the
    memory. With a GPU there is one copy, on the GPU.
    """
    if settings.processes is not None:
        return settings.processes
    workers, _ = workers_and_threads(settings)
    return _on_gpu(settings) or workers * graph * _COPIES <= memory_limit()[0]


def _on_gpu(settings: Settings) -> bool:
    """Return whether one process is to encode by default, on a GPU; ``auto`` may find that it cannot be used."""
    return settings.processes is not False and expects_cuda(settings.device)


def threads_alone(settings: Settings, graph: int) -> int:
    """Return the threads of a second encoder, for an image beside which nothing runs; 0 if it makes no sense.

    Threads are fixed when onnxruntime opens a graph, so this one has all cores where the workers share them. Each
    process may come to hold a copy, of ``graph`` bytes; all of them take an eighth of the memory at most.
    """
    workers, threads = workers_and_threads(settings)
    copies = workers if in_processes(settings, graph) else 1
    fits = copies * graph * _COPIES <= memory_limit()[0]
    cores = usable_cores()
    return cores if settings.threads is None and threads < cores and fits else 0


def measured(
    settings: Settings,
    provider: str,
    encode: Encode,
    pixels: Floats,
    threads: int = 0,
    alone: Encode | None = None,
    graph: int | None = None,
) -> Sizes:
    """Return the sizes for an open encoder; the batch is doubled as long as that makes an image 5 % cheaper.

    If one process encodes for all, others decode ahead; with ``--workers 0`` there are no others. The second encoder is
    used if it saves a lone image a fifth of its time, and 10 ms.

    Args:
        settings: What they set is taken as it is.
        provider: The execution provider that the encoder runs on.
        encode: The encoder.
        pixels: An image's input (3, size, size).
        threads: Those of the second encoder, see ``threads_alone``; 0 if there is none.
        alone: The second encoder.
        graph: Bytes of the encoder if each worker is a process; on a CPU the batch is then not measured, because a
            worker keeps the memory that this takes.
    """
    workers, shared = workers_and_threads(settings)
    on_cpu = provider == "CPUExecutionProvider"
    if not on_cpu and graph is None:
        workers = settings.workers or 2  # so that one batch is made ready while another runs
    decoders = settings.decoders
    if decoders is None:
        one_encodes = graph is None or not on_cpu or (_on_gpu(settings) and not settings.workers)
        apart = one_encodes and settings.processes is not False
        decoders = min(usable_cores(), _DECODERS if on_cpu else _MOST_DECODERS) if apart else 0
    batch = settings.max_batch
    if batch is None and graph is not None and on_cpu:
        batch = _BATCH if graph < _LARGE_GRAPH else _BATCH_OF_LARGE_GRAPH
        encode([pixels] * batch)  # a graph may fail, or never end, in batches alone
    lone = threads if alone is not None and on_cpu else 0
    each = _seconds(encode, [pixels]) if lone or batch is None else 0.0
    if lone and alone is not None and not _pays(alone, pixels, each, lone / shared):
        lone = 0
    if batch is None:
        batch, largest = 1, _LARGEST.get(provider, _LARGEST_ELSEWHERE)
        while batch < largest and (doubled := _seconds(encode, [pixels] * (2 * batch))) < _WORTH * each:
            batch, each = 2 * batch, doubled
    return Sizes(workers, batch, decoders, lone)


def decode_memory(settings: Settings, workers: Sequence[int] = ()) -> int:
    """Return the bytes for images that are being decoded: what an open and warm model leaves.

    An eighth of all memory stays free for batches, threads and what the allocator does not give back. If no cgroup
    limits this process, others share the machine, and images get at most half of it.

    Args:
        settings: What they set is taken as it is.
        workers: Identifiers of this process's worker processes, which hold memory too.
    """
    if settings.decode_memory is not None:
        return settings.decode_memory
    limit, ours = memory_limit()
    left = (
        limit
        - resident("self")
        - sum(map(resident, workers))
        - 2 * bodies_limit(settings.limits.body_bytes)
        - limit // 8
    )
    return max(_LEAST_MEMORY, left if ours else min(left, limit // 2))


def bodies_limit(body_bytes: int) -> int:
    """Return the bytes of request bodies that may be in memory at once: a sixteenth, because parsing doubles them."""
    return max(2 * body_bytes, min(32 * body_bytes, memory_limit()[0] // 16))


def memory_limit(root: Path = Path("/")) -> tuple[int, bool]:
    """Return the bytes of memory that this process may use, and whether a cgroup sets them.

    Args:
        root: Folder of /proc and /sys.

    Returns:
        The lowest limit of its cgroups (version 1 or 2), else the machine's memory.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for path in _limit_files(root) if (limit := _number(path)) is not None and limit < machine]
    return min(limits, default=machine), bool(limits)


def _seconds(encode: Encode, batch: Sequence[Floats]) -> float:
    """Return the seconds an image takes, the better of two runs."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        encode(batch)
        times.append(time.perf_counter() - start)
    return min(times) / len(batch)


def _pays(alone: Encode, pixels: Floats, each: float, times: float) -> bool:
    """Return whether a second encoder, with so many times the threads, saves enough; it is not opened if it cannot."""
    if each - each / times < _ALONE_SECONDS:
        return False
    alone([pixels])  # opens it
    return each - _seconds(alone, [pixels]) >= max(_ALONE_SECONDS, (1 - _ALONE_WORTH) * each)


def _limit_files(root: Path) -> list[Path]:
    """Return the files that may hold a limit, of this process's cgroups and those above; a container lacks some."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    limit_files = []
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        for controller, name in _LIMIT_FILES.items():
            if controller in controllers.split(","):
                top = root / "sys/fs/cgroup" / controller
                folder = top / inside.lstrip("/")
                limit_files += [folder / name for folder in (folder, *folder.parents) if folder.is_relative_to(top)]
    return limit_files


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max", or no such file
        return None


def resident(process: int | str) -> int:
    """Return the bytes that a process holds now; 0 if unknown."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
