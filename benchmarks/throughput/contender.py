"""One contender in a process of its own: photos from file to answer, pixels to embeddings, and what it answered.

Started by ``python -m benchmarks.throughput`` with the cores and threads that it may use. Prints ``ready`` when it has
warmed up, waits for a line, measures, and prints JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import command

CORES = "SAR_BENCH_CORES"


def main() -> None:
    """Open, warm up, wait, measure, print."""
    os.sched_setaffinity(0, [int(core) for core in os.environ[CORES].split(",")])  # before any library counts them
    options = arguments()
    logging.disable(logging.WARNING)  # open_clip says that random weights are random
    from benchmarks.throughput.settings import Setting

    setting = Setting(options.mode, options.batch, options.processes, options.workers, bool(options.channels_last))
    side = opened(options, setting.channels_last)
    paths = sorted(options.photos.glob("*.jpg"))
    endless = paths if setting.mode == "loader" else itertools.cycle(paths[options.offset :] + paths[: options.offset])
    labels = side.labels(endless, setting)
    whole_batch(labels, setting.batch)
    print("ready", flush=True)
    sys.stdin.readline()
    result: dict[str, Any] = {
        "answers": measured(lambda: whole_batch(labels, setting.batch), setting.batch, options.seconds)
    }
    result["mib"] = memory()
    labels.close()
    pixels = [side.decode(path) for path in paths[: setting.batch]]
    side.encode(pixels)
    result["encode"] = measured(lambda: side.encode(pixels), setting.batch, options.seconds / 2)
    start = time.perf_counter()
    for path in paths:
        side.decode(path)
    result["decode_ms"] = 1000 * (time.perf_counter() - start) / len(paths)
    if options.save:
        save(side, paths, options.save)
    print(json.dumps(result), flush=True)


def whole_batch(labels: Iterator[object], size: int) -> None:
    """Take the answers of one batch, so that what was computed and what is counted are the same."""
    for _ in range(size):
        next(labels)


def opened(options: argparse.Namespace, channels_last: bool) -> Any:
    """The side that is asked for; torch is imported for its own side alone."""
    if options.side == "ours":
        from benchmarks.throughput.ours import Ours

        return Ours(options.bundle, options.precision, options.threads)
    from benchmarks.throughput.with_open_clip import OpenClip

    return OpenClip(options.bundle, options.backbone, options.pretrained, options.threads, channels_last)


def measured(step: Callable[[], object], images: int, seconds: float) -> dict[str, float]:
    """Images a second while a step is repeated, and CPU seconds of this process and of all others in that time."""
    import psutil

    done, start = 0, time.perf_counter()
    before, everyone = _cpu(), _busy(psutil.cpu_times())
    while (now := time.perf_counter()) < start + seconds:
        step()
        done += images
    wall = now - start
    return {"rate": done / wall, "images": done, "cpu": _cpu() - before, "busy": _busy(psutil.cpu_times()) - everyone,
            "wall": wall}  # fmt: skip


def memory() -> float:
    """MiB of this process and its children, pages that they share counted once."""
    import psutil

    me = psutil.Process()
    return sum(float(process.memory_full_info().pss) for process in (me, *me.children(recursive=True))) / 2**20


def save(side: Any, paths: list[Path], target: Path) -> None:
    """Labels and embeddings of all photos, one at a time, so that a batch has no part in them."""
    import numpy as np

    rows = [side.encode([side.decode(path)]) for path in paths]
    labels = [side.rank(row)[0] for row in rows]
    np.savez(target, rows=np.concatenate([np.asarray(row) for row in rows]), labels=np.array(labels))


def _cpu() -> float:
    """CPU seconds of this process and its children that live."""
    import psutil

    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (me, *me.children(recursive=True)))


def _busy(times: Any) -> float:
    """CPU seconds that the whole machine has spent."""
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")))


def arguments() -> argparse.Namespace:
    """The command line."""
    return command.options(
        __doc__,
        side=(str, "ours or open_clip"),
        bundle=Path,
        precision=("fp32", "of our side"),
        backbone=(str, "of the other side"),
        pretrained=(str, "its weights"),
        photos=Path,
        offset=(0, "photo to begin with"),
        threads=int,
        seconds=float,
        save=(Path, "file for labels and embeddings"),
        mode=str,
        batch=int,
        processes=int,
        workers=int,
        channels_last=int,
    )


if __name__ == "__main__":
    main()
