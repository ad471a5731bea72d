"""A cluster: Ray Data lists pieces on one node and works them off on all, each to a part that it commits itself.

A piece whose node is lost runs again elsewhere and writes the same part, so the rule that makes one machine exact makes
the cluster exact. Nodes share paths (or storage) for bundle, inputs and output.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sar_infer.bulk.answers import Recipe
from sar_infer.bulk.items import Piece
from sar_infer.bulk.outputs.rows import Form, Packed
from sar_infer.bulk.processes import Pool
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.work import Work, batches
from sar_infer.errors import DeviceError, InputError, SarInferError

_LISTING = 0.01
"""Of a CPU: another share than a piece takes, so that Ray does not make one task of listing and work."""
_open: list[tuple[Recipe, Form, Pool]] = []
"""In a process of the cluster: what the last piece was answered with."""


def run_ray(
    work: Work, recipe: Recipe, form: Form, tasks: int | None, batch_size: int, progress: Progress
) -> dict[int, str]:
    """Write the parts of all pieces that are left, in any order; inside ``cluster``. Returns their names by piece.

    Args:
        work: What is left to do.
        recipe: How to answer.
        form: Of the parts.
        tasks: Pieces at a time at most; None = as many as the cluster has CPUs for.
        batch_size: Images encoded together.
        progress: Told of every piece.

    Raises:
        SarInferError: a piece failed, not for the loss of a node.
    """
    import ray.data

    from sar_infer.bulk.ray_source import PieceSource

    here = str(Path.cwd())
    pieces = ray.data.read_datasource(PieceSource(work, here), num_cpus=_LISTING)
    commit = functools.partial(_commit, here, work, recipe, form, batch_size)
    written: dict[int, str] = {}
    try:
        for row in pieces.map_batches(commit, batch_size=1, concurrency=tasks, **_resources(recipe)).iter_rows():
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
    """What a node refused, under all that Ray has wrapped around it."""
    while error is not None and not isinstance(error, SarInferError):
        error = getattr(error, "cause", None) or error.__cause__
    return error


@contextlib.contextmanager
def cluster(address: str) -> Iterator[None]:
    """A connection to a cluster: ``auto`` = that of this machine or of RAY_ADDRESS, ``local`` = a new one here.

    Raises:
        InputError: Ray is missing, or there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data
    except ModuleNotFoundError:
        raise InputError("--engine ray needs Ray: pip install 'sar-clip[ray]'") from None
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon and port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--address {address}: no cluster there ({reason}); start one: ray start --head") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # for _reason
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what matters is told in one line
    try:
        yield
    finally:
        ray.shutdown()


def _commit(
    folder: str, work: Work, recipe: Recipe, form: Form, batch_size: int, block: dict[str, Any]
) -> dict[str, list[int | str]]:
    """On a node: answer one piece, and write its part."""
    os.chdir(folder)  # relative paths are the driver's
    piece: Piece = pickle.loads(block["piece"][0])  # noqa: S301 - of this run's own lister
    pool = _opened(recipe, form)
    progress = Progress()

    def packed() -> Iterator[Packed]:
        cut = ((piece, batch) for batch in batches(piece, batch_size, progress.pass_over))
        for _, answers in pool.in_order(cut):
            progress.count(answers.inputs, answers.rejected)
            yield answers.packed

    part = work.job.part(piece)
    with work.job.store.stage(part) as path:
        form.write(path, packed())
    counts = {name: [getattr(progress, name)] for name in ("inputs", "rejected", "passed_over")}
    return {"number": [piece.number], "part": [part], **counts}


def _opened(recipe: Recipe, form: Form) -> Pool:
    """Once for all pieces that come to this process; it feeds one more, which may die of an image or hang."""
    if not _open or _open[0][:2] != (recipe, form):
        while _open:
            _open.pop()[2].close()
        _open.append((recipe, form, Pool(recipe, form, 1)))
    return _open[0][2]


def _resources(recipe: Recipe) -> dict[str, Any]:
    """Of a piece; a process stays when it is done, and with it the session."""
    return {"num_cpus": recipe.threads or 1, "num_gpus": int(recipe.device == "cuda"), "max_calls": 0}
