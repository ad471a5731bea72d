"""Sizes that the settings leave open, by the cores, the memory and the size of the image encoder."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from sar_infer.encoders.sessions import is_accelerator, usable_cores
from sar_infer.server.settings import Settings

_LARGE_GRAPH = 2**26
"""Bytes from which a graph counts as large: its weights do not stay in the cache, so they are read once a batch."""
_BATCH, _BATCH_OF_LARGE_GRAPH, _BATCH_ON_GPU = 1, 8, 32
"""Images that are encoded together at most; on a CPU more save no time, and take memory."""
_AT_ONCE = 2
"""Batches at once in one process, so that one is decoded while another is encoded."""
_FRONT = 256 * 2**20
"""Bytes for the HTTP process, without request bodies: the name encoder, a bank, Python."""
_WORKER = 128 * 2**20
"""Bytes of a worker process without its encoder and without an image."""
_BANKS = 4
"""One part in this many of the memory is for open banks."""
_SECOND = 8
"""One part in this many of the memory is for second encoders, which use all cores."""
BYTES_A_PIXEL = 8
"""Of any JPEG, PNG, GIF or BMP while it is decoded, but for hostile ones; a WebP takes twice as much."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of an engine.

    Attributes:
        processes: Images are decoded and encoded in worker processes; else in threads of the server's own.
        workers: Those processes; in one process the batches that run at once.
        threads: Threads of a batch in the encoder.
        max_batch: Images of a batch at most.
        alone: Threads for a single image when nothing else runs, by an encoder of its own; 0: it has none.
        decoders: Images that are decoded at once in one process; a worker process decodes one.
        memory: Bytes that a worker process may have; an image that would take more is refused. 0: no limit.
    """

    processes: bool
    workers: int
    threads: int
    max_batch: int
    alone: int = 0
    decoders: int = 1
    memory: int = 0


def sizes(settings: Settings, graph: int) -> Sizes:
    """Return the sizes for an image encoder of a size in bytes.

    On a GPU one process does all, unless the settings ask for workers. Else there are two workers, or a quarter of the
    cores if that is more, and no more than the memory has room for, with the largest photo in each. Batches of
    one thread waste nothing, but a lone image then waits for a single core. So with a large graph, where that takes
    long, each worker may open a second encoder that has all cores: onnxruntime fixes threads when it opens a graph
    (ViT-B/32, one client: 6.0 images a second instead of 3.9, ADR 10).
    """
    cores, memory = usable_cores(), memory_limit()
    left = memory - _FRONT - 2 * bodies_limit(settings.limits.body_bytes, memory) - banks_limit(settings, memory)
    photo = BYTES_A_PIXEL * settings.limits.pixels
    on_gpu = is_accelerator(settings.device)
    workers = settings.workers
    if workers is None:
        workers = 0 if on_gpu else max(1, min(cores, max(2, cores // 4), left // (_WORKER + 2 * graph + photo)))
    threads = settings.threads or max(1, cores // max(1, workers))
    large = graph >= _LARGE_GRAPH
    batch = settings.max_batch or (_BATCH_ON_GPU if on_gpu else _BATCH_OF_LARGE_GRAPH if large else _BATCH)
    if not workers:
        decoders = max(1, min(max(_AT_ONCE, min(cores, batch)), left // (2 * photo)))
        return Sizes(False, min(_AT_ONCE, decoders), threads, batch, decoders=decoders)
    second = large and not on_gpu and settings.threads is None and threads < cores
    alone = cores if second and _SECOND * workers * graph <= memory else 0
    return Sizes(True, workers, threads, batch, alone, memory=max(0, left) // workers)


def banks_limit(settings: Settings, memory: int) -> int:
    """Return the bytes of open banks of a folder: as set, else a quarter; 0 without a folder."""
    if settings.banks is None:
        return 0
    return memory // _BANKS if settings.banks_memory is None else settings.banks_memory


def bodies_limit(body_bytes: int, memory: int) -> int:
    """Return the bytes of request bodies that may be in memory at once: a sixteenth, because parsing doubles them."""
    return max(2 * body_bytes, min(32 * body_bytes, memory // 16))


def memory_limit(root: Path = Path("/")) -> int:
    """Return the bytes of memory for this server: the lowest limit of its cgroups (version 1 or 2).

    Without a limit others share the machine, and the server takes half of it.

    Args:
        root: Folder of /proc and /sys.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [machine]
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, inside = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
            own = top / inside.lstrip("/")
            for folder in (own, *own.parents):  # a container lacks some
                if folder.is_relative_to(top):
                    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                        limits.append(
                            int((folder / ("memory.limit_in_bytes" if controllers else "memory.max")).read_text())
                        )
    return min(limits) if min(limits) < machine else machine // 2
