"""Sizes that the settings leave open, by the cores, the memory and the size of the image encoder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_infer.encoders.sessions import expects_cuda, usable_cores
from sar_infer.server.settings import Settings

_LARGE_GRAPH = 2**26
"""Bytes from which a graph counts as large: its weights do not stay in the cache, so they are read once a batch."""
_BATCH, _BATCH_OF_LARGE_GRAPH, _BATCH_ON_GPU = 1, 8, 32
"""Images that are encoded together at most; on a CPU more save no time, and take memory."""
_AT_ONCE = 2
"""Batches at once in one process, so that one is decoded while another is encoded."""
_COPIES = 8
"""One part in so many of the memory is for the copies of the encoder in worker processes; as much again is for second
encoders, which use all cores."""
_LEAST_MEMORY = 64 * 2**20
_LIMIT_FILES = {"": "memory.max", "memory": "memory.limit_in_bytes"}
"""Files with a cgroup's limit, by the controller that /proc/self/cgroup names: version 2, and version 1."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of an engine.

    Attributes:
        processes: Images are decoded and encoded in worker processes; else in threads of the server's own.
        workers: Those processes; in one process the batches that run at once.
        threads: Threads of a batch in the encoder.
        max_batch: Images of a batch at most.
        alone: Threads for an image beside which nothing runs, by an encoder of its own; 0: it has none.
    """

    processes: bool
    workers: int
    threads: int
    max_batch: int
    alone: int = 0


def sizes(settings: Settings, graph: int) -> Sizes:
    """Return the sizes for an image encoder of so many bytes.

    On a GPU one process does all, unless the settings ask for workers. Else there are two workers, or a quarter of the
    cores if that is more, and no more than as many copies of the encoder as an eighth of the memory holds. Batches of
    one thread waste nothing, but a lone image then waits for a single core. So with a large graph, where that takes
    long, each worker may open a second encoder that has all cores: onnxruntime fixes threads when it opens a graph.
    """
    cores, memory = usable_cores(), memory_limit()[0]
    on_gpu = expects_cuda(settings.device)
    workers = settings.workers
    if workers is None:
        copies = memory // (_COPIES * max(1, graph))
        workers = 0 if on_gpu else max(1, min(cores, max(2, cores // 4), copies))
    threads = settings.threads or max(1, cores // max(1, workers))
    large = graph >= _LARGE_GRAPH
    batch = settings.max_batch or (_BATCH_ON_GPU if on_gpu else _BATCH_OF_LARGE_GRAPH if large else _BATCH)
    if not workers:
        return Sizes(False, _AT_ONCE, threads, batch)
    second = large and not on_gpu and settings.threads is None and threads < cores
    return Sizes(True, workers, threads, batch, cores if second and workers * graph * _COPIES <= memory else 0)


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
    limits = [machine]
    for path in _limit_files(root):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int(path.read_text()))
    return min(limits), min(limits) < machine


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


def resident(process: int | str) -> int:
    """Return the bytes that a process holds now; 0 if unknown."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
