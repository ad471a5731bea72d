"""Run on a Ray cluster: every node writes the parts of the chunks that it gets.

A chunk whose node is lost runs again elsewhere and writes the same part, so every input has exactly one row, as on one
machine. Nodes share paths (or storage) for bundle, inputs and output. Importing this module needs Ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray

from sar_infer.bulk.chunks import Chunk
from sar_infer.bulk.engine import Runner
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.rows import RowFormat
from sar_infer.bulk.store import Store
from sar_infer.bulk.worker import WorkerOptions
from sar_infer.errors import DeviceError, SarInferError

_MOST_LOST = 10
"""Times that a chunk runs again because its node is lost."""
_open: list[tuple[Any, Runner]] = []
"""In a process of the cluster: the runner of the last chunk, with its settings."""


def run_ray(
    chunks: Iterable[Chunk],
    options: WorkerOptions,
    form: RowFormat,
    store: Store,
    tasks: int | None,
    progress: Progress,
) -> None:
    """Write the parts of chunks, in any order, on the cluster that this process is connected to, and disconnect.

    Args:
        chunks: The chunks, taken as they are needed.
        options: How to answer.
        form: The form of the parts.
        store: The output.
        tasks: The most chunks at a time; None = twice as many as the cluster has CPUs.
        progress: Notified of every part.

    Raises:
        SarInferError: a chunk failed for another reason than the loss of a node.
    """
    gpus = int(options.device == "cuda")
    commit = ray.remote(num_cpus=options.threads or 1, num_gpus=gpus, max_calls=0, max_retries=_MOST_LOST)(_commit)
    settings = ray.put((str(Path.cwd()), options, form, store))
    cpus = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call] # Ray's
    most = tasks or 2 * max(1, int(cpus))
    waiting: list[Any] = []

    def one_done() -> None:
        (first,), waiting[:] = ray.wait(waiting)
        inputs, rejected = ray.get(first)
        progress.count(inputs, rejected)
        progress.keep(inputs)

    try:
        for chunk in chunks:
            waiting.append(commit.remote(settings, chunk))
            if len(waiting) >= most:
                one_done()
        while waiting:
            one_done()
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, SarInferError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise cause from None
        raise DeviceError(f"--engine ray: a chunk failed: {str(error).strip().splitlines()[-1][:300]}") from None
    finally:
        ray.shutdown()


def _commit(settings: tuple[str, WorkerOptions, RowFormat, Store], chunk: Chunk) -> tuple[int, int]:
    """Write the part of a chunk on a node, and return its inputs and those without an answer."""
    folder, options, form, store = settings
    os.chdir(folder)  # relative paths are the driver's
    if not _open or _open[0][0] != (options, form):
        while _open:
            _open.pop()[1].close()
        _open.append(((options, form), Runner(options, form)))
    progress = Progress()
    _open[0][1].write(chunk, store, progress)
    return progress.inputs, progress.rejected
