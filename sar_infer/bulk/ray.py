"""Run on a Ray cluster: Ray Data lists pieces on one node, and every node commits the parts of the pieces it gets.

A piece whose node is lost runs again elsewhere and writes the same part, so every input has exactly one row, as on one
machine. Nodes share paths (or storage) for bundle, inputs and output. Importing this module needs Ray.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import ray.data
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from sar_infer.bulk.items import Piece
from sar_infer.bulk.outputs.rows import RowFormat
from sar_infer.bulk.pool import BatchPool
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.work import Work
from sar_infer.bulk.worker import WorkerOptions
from sar_infer.errors import DeviceError, SarInferError

_LISTING = 0.01
"""CPUs for listing: not the share that a piece takes, or Ray would fuse listing and work into one task."""
_open: list[tuple[WorkerOptions, RowFormat, BatchPool]] = []
"""In a process of the cluster: the pool that answered the last piece."""


def run_ray(
    work: Work, options: WorkerOptions, form: RowFormat, tasks: int | None, batch_size: int, progress: Progress
) -> dict[int, str]:
    """Write the parts of all remaining pieces, in any order; call it inside ``cluster``.

    Args:
        work: The remaining work.
        options: How to answer.
        form: The file type of the parts.
        tasks: The most pieces at a time; None = as many as the cluster has CPUs for.
        batch_size: Images encoded together.
        progress: Notified of every piece.

    Returns:
        Names of the parts, by piece.

    Raises:
        SarInferError: a piece failed for another reason than the loss of a node.
    """
    here = str(Path.cwd())
    pieces = ray.data.read_datasource(PieceSource(work, here), num_cpus=_LISTING)
    commit = functools.partial(_commit, here, work, options, form, batch_size)
    written: dict[int, str] = {}
    try:
        for row in pieces.map_batches(commit, batch_size=1, concurrency=tasks, **_resources(options)).iter_rows():
            progress.count(int(row["inputs"]), int(row["rejected"]))
            progress.pass_over(int(row["passed_over"]))
            progress.finished()
            written[int(row["number"])] = str(row["part"])
    except ray.exceptions.RayError as error:
        if (reason := _reason(error)) is not None:
            raise reason from None
        raise DeviceError(f"--engine ray: a piece failed: {str(error).strip().splitlines()[-1][:300]}") from None
    return written


def _reason(error: BaseException | None) -> SarInferError | None:
    """Return the error that a node raised, unwrapped from what Ray puts around it."""
    while error is not None and not isinstance(error, SarInferError):
        error = getattr(error, "cause", None) or error.__cause__
    return error


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """Prepare the cluster that this process is connected to, and disconnect at the end."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # for _reason
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the run reports errors in one line itself
    try:
        yield
    finally:
        ray.shutdown()


def _commit(
    folder: str, work: Work, options: WorkerOptions, form: RowFormat, batch_size: int, block: dict[str, Any]
) -> dict[str, list[int | str]]:
    """Answer one piece on a node and write its part."""
    os.chdir(folder)  # relative paths are the driver's
    piece: Piece = pickle.loads(block["piece"][0])  # noqa: S301 - of this run's own lister
    progress = Progress()
    written = _opened(options, form).write_parts([piece], work.job, batch_size, progress)
    counts = {name: [getattr(progress, name)] for name in ("inputs", "rejected", "passed_over")}
    return {"number": [piece.number], "part": [written[piece.number]], **counts}


def _opened(options: WorkerOptions, form: RowFormat) -> BatchPool:
    """Return the pool of this process, opened once for all its pieces.

    The pool has a process that answers and one that reads, which may die or hang because of an image or a file.
    """
    if not _open or _open[0][:2] != (options, form):
        while _open:
            _open.pop()[2].close()
        _open.append((options, form, BatchPool(options, form, 1)))
    return _open[0][2]


def _resources(options: WorkerOptions) -> dict[str, Any]:
    """Return what Ray reserves for a piece; a process stays when a piece is done, and keeps its session."""
    return {"num_cpus": options.threads or 1, "num_gpus": int(options.device == "cuda"), "max_calls": 0}


class PieceSource(Datasource):
    """A Ray dataset with a block for every remaining piece: one row, column ``piece``, listed while others work.

    Args:
        work: The work whose pieces are listed.
        folder: Where relative paths start.
    """

    def __init__(self, work: Work, folder: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Ray's
        self._work = work
        self._folder = folder

    @property
    def supports_distributed_reads(self) -> bool:
        """Return False: list on the driver's node, the one that the run cannot lose anyway."""
        return False

    def estimate_inmemory_data_size(self) -> None:
        """Return None: the size is not known before the pieces are listed."""
        return

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:  # noqa: ARG002 - Ray's signature
        """Return one task, since a listing has one order."""
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._blocks, metadata)]

    def _blocks(self) -> Iterator[Any]:
        os.chdir(self._folder)
        for piece in self._work.left():
            yield pyarrow.table({"piece": [pickle.dumps(piece)]})
