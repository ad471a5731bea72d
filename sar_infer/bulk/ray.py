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

from sar_infer.bulk.answers import Answerer, Recipe
from sar_infer.bulk.items import Piece
from sar_infer.bulk.outputs.rows import Form, Packed
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.work import Work, batches
from sar_infer.errors import DeviceError, InputError

_LISTING = 0.01
"""Of a CPU: another share than a piece takes, so that Ray does not make one task of listing and work."""
_open: list[tuple[Recipe, Answerer]] = []
"""In a process of the cluster: what the last piece was answered with."""


def run_ray(work: Work, recipe: Recipe, form: Form, tasks: int | None, batch_size: int, progress: Progress) -> None:
    """Write the parts of all pieces that are left, in any order; inside ``cluster``.

    Args:
        work: What is left to do.
        recipe: How to answer.
        form: Of the parts.
        tasks: Pieces at a time at most; None = as many as the cluster has CPUs for.
        batch_size: Images encoded together.
        progress: Told of every piece.

    Raises:
        DeviceError: a piece failed, not for the loss of a node.
    """
    import ray.data

    from sar_infer.bulk.ray_source import PieceSource

    here = str(Path.cwd())
    pieces = ray.data.read_datasource(PieceSource(work, here), num_cpus=_LISTING)
    commit = functools.partial(_commit, here, work, recipe, form, batch_size)
    try:
        for row in pieces.map_batches(commit, batch_size=1, concurrency=tasks, **_resources(recipe)).iter_rows():
            progress.count(int(row["inputs"]), int(row["rejected"]))
            progress.finished()
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1][:300]
        raise DeviceError(f"--engine ray: a piece failed: {reason}") from None


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
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _commit(
    folder: str, work: Work, recipe: Recipe, form: Form, batch_size: int, block: dict[str, Any]
) -> dict[str, list[int]]:
    """On a node: answer one piece, and write its part."""
    os.chdir(folder)  # relative paths are the driver's
    piece: Piece = pickle.loads(block["piece"][0])  # noqa: S301 - of this run's own lister
    answerer = _opened(recipe)
    done = {"inputs": 0, "rejected": 0}

    def packed() -> Iterator[Packed]:
        for batch in batches(piece, batch_size):
            answers = answerer.answer(batch, form)
            done["inputs"] += answers.inputs
            done["rejected"] += answers.rejected
            yield answers.packed

    with work.job.store.stage(work.job.part(piece)) as path:
        form.write(path, packed())
    return {name: [count] for name, count in done.items()}


def _opened(recipe: Recipe) -> Answerer:
    """Once for all pieces that come to this process."""
    if not _open or _open[0][0] != recipe:
        _open[:] = [(recipe, Answerer(recipe))]
    return _open[0][1]


def _resources(recipe: Recipe) -> dict[str, Any]:
    """Of a piece; a process stays when it is done, and with it the session."""
    return {"num_cpus": recipe.threads or 1, "num_gpus": int(recipe.device == "cuda"), "max_calls": 0}
