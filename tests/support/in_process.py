"""A pool of workers that is this process, for tests of what is made of its answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest

from sar_infer.processes.pool import StartError


class PoolHere:
    """As ``WorkerPool``, but one task after the other, and nothing dies; tasks and answers are pickled as there."""

    def __init__(self, load: Callable[[], Callable[..., Any]], workers: int) -> None:
        self._load = load

    def start(self) -> None:
        """Load once, however many workers there are."""
        try:
            self._answer = ForkingPickler.loads(ForkingPickler.dumps(self._load))()
        except Exception as error:
            raise StartError(str(error)) from error

    def submit(self, *task: Any) -> Future[Any]:
        """Answer a task now."""
        future: Future[Any] = Future()
        try:
            answer = self._answer(*ForkingPickler.loads(ForkingPickler.dumps(task)))
            future.set_result(ForkingPickler.loads(ForkingPickler.dumps(answer)))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self, *, now: bool = False) -> None:
        """Do nothing."""


def bulk_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have bulk runs start no process; what takes too long to decode is then for pytest to end."""
    monkeypatch.setattr("sar_infer.bulk.pool.WorkerPool", PoolHere)
    monkeypatch.setattr("sar_infer.bulk.worker.deadline", lambda _: contextlib.nullcontext())
