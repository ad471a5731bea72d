"""The worker processes of an engine, seen from the front: batches go to those that are idle, and the dead are replaced.

A batch goes to one worker over a pipe of its own. A worker that dies, or is ended because a batch takes too long, takes
only that batch with it (``batcher`` says what becomes of it). ``supervisor`` says when another is started, or none for
a while.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

from sar_infer._arrays import Floats
from sar_infer.encoders.waiting import TRIAL_SECONDS, in_background
from sar_infer.errors import BundleError
from sar_infer.processes.worker import DeathError, TimeLimitError, Worker
from sar_infer.server.metrics import Cause, Metrics
from sar_infer.server.model.process import Begun, Model, Result, Task, begin
from sar_infer.server.model.supervisor import PAUSE, Supervisor
from sar_infer.server.problems import Problem

_log = logging.getLogger("sar_infer.server")
_ENCODING = 10.0
"""Seconds for encoding a batch and for what a busy machine adds."""
LOADING_SECONDS = TRIAL_SECONDS + 30
"""Seconds for a process to start, to open its graph and to run it once."""


class Workers:
    """Processes that compute batches; everything but ``start`` runs on one event loop.

    Args:
        model: What they run.
        metrics: Counts those that live and those that died.
        check: Called with the row (1, D) of each new one for the self-test image; raises BundleError if it is wrong.

    Attributes:
        provider: The execution provider that they run on; set by ``start``.
    """

    def __init__(self, model: Model, metrics: Metrics, check: Callable[[Floats], object]) -> None:
        self.provider = ""
        self._batch_seconds = 2 * model.limits.image_seconds + _ENCODING
        self._model = model
        self._check = check
        self._metrics = metrics
        self._supervisor: Supervisor[Worker[Any]] = Supervisor(model.sizes.workers)
        self._line: deque[asyncio.Future[Worker[Any]]] = deque()
        self._loading: set[Worker[Any]] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._stopped: WeakSet[Worker[Any]] = WeakSet()
        self._logged: str | None = None
        self._closed = False

    def start(self) -> None:
        """Start all workers side by side, and wait until they are ready.

        Raises:
            BundleError: the graph is refused, or a worker died or took too long while it opened it.
            DeviceError: the device is not available.
        """
        begun = [in_background(self._begun) for _ in range(self._supervisor.start(time.monotonic()))]
        try:
            for future in begun:
                self._ready(future.result())
        except TimeLimitError:
            raise BundleError(
                f"{self._model.graph}: no worker process was ready within {LOADING_SECONDS:g} s"
            ) from None
        except DeathError as error:
            raise BundleError(f"{self._model.graph}: {error} while it opened this graph") from None
        except OSError as error:
            raise BundleError(f"{self._model.graph}: no worker process can be started ({error.strerror})") from None

    async def compute(self, tasks: Sequence[Task], alone: bool = False) -> list[Result]:
        """Return the results of a batch, from the next worker that is idle; ``alone`` says that nothing else runs.

        Raises:
            DeathError: the worker died (``TimeLimitError`` if it took too long).
            Problem: ``unavailable``, while the breaker is open.
        """
        worker = None if self._line else self._taken()
        if worker is None:
            # It comes or is refused in the end: starts, batches and deaths in a row all have a limit.
            waiting: asyncio.Future[Worker[Any]] = asyncio.get_running_loop().create_future()
            self._line.append(waiting)
            self._settle()
            worker = await waiting
        try:
            results: list[Result] = await worker.answer_async((tasks, alone))
        except DeathError as error:
            cause: Cause = "time" if isinstance(error, TimeLimitError) else "crash"
            self._forget(worker, "silence" if worker in self._stopped else cause, error)
            self._settle()
            raise
        except Exception:
            self._idle(worker)
            raise
        self._idle(worker)
        return results

    def tend(self) -> None:
        """Start what is missing, and end workers that were stopped or died idle; to be called now and then."""
        for worker in (*self._loading, *self._supervisor.ready):
            if worker.stopped:
                self._stopped.add(worker)
                worker.kill()
        for worker, state in [*self._supervisor.ready.items()]:
            if state == "idle" and worker in self._stopped:  # for a busy one, whoever waits for its answer is told
                self._forget(worker, "silence", "it was stopped")
            elif state == "idle" and not worker.alive:
                self._forget(worker, "idle", "it ended")
        self._settle()

    def close(self) -> None:
        """End all workers; what waits for one is refused. Called from any thread once the event loop has ended."""
        if self._closed:
            return
        self._closed = True
        self._settle()
        for worker in [*self._loading]:
            worker.kill()  # a thread waits for it, and is told
        ready = [*self._supervisor.ready]
        for worker in ready:
            worker.kill()
            worker.dismiss()
        in_background(lambda: [worker.ended() for worker in ready])

    @property
    def pids(self) -> list[int]:
        """Return the identifiers of the processes that are ready."""
        return [worker.pid for worker in [*self._supervisor.ready]]

    def _idle(self, worker: Worker[Any]) -> None:
        self._supervisor.answered(worker)
        if self._line or self._closed:
            self._settle()

    def _taken(self) -> Worker[Any] | None:
        """Return an idle worker, which is busy from here on; those that have ended are forgotten."""
        while not self._closed and (worker := self._supervisor.take()) is not None:
            if worker.alive:
                return worker
            self._forget(worker, "idle", "it ended")
        return None

    def _forget(self, worker: Worker[Any], cause: Cause, reason: object) -> None:
        """Count a worker that has ended; crashes in a row open the breaker, other causes are rare enough."""
        if self._closed:
            return
        self._supervisor.gone(worker, str(reason), time.monotonic(), at_work=cause == "crash")
        worker.dismiss()
        self._metrics.deaths.labels(cause).inc()
        _log.warning("worker process %s is gone: %s", worker.pid, reason)

    def _settle(self) -> None:
        """Hand idle workers to those who wait, or refuse them, and start what is missing, as the states have it."""
        while self._line and (worker := self._taken()) is not None:
            self._line.popleft().set_result(worker)
        fault = "shutting down" if self._closed else self._supervisor.fault
        while self._line and fault is not None:
            self._line.popleft().set_exception(Problem("unavailable", f"{fault}; try again", PAUSE))
        if self._closed:
            return
        if fault is not None and fault != self._logged:
            _log.error("no work for %g s: %s", PAUSE, fault)
        self._logged = fault
        for _ in range(self._supervisor.start(time.monotonic())):
            starting = asyncio.get_running_loop().create_task(self._start())
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)
        self._metrics.workers.set(len(self._supervisor.ready))

    async def _start(self) -> None:
        """Start a worker in place of one that is gone."""
        try:
            worker = await asyncio.wrap_future(in_background(self._begun))
        except Exception as error:  # a full machine, a file that is gone, a death: all the same here
            if not self._closed:
                _log.warning("no worker process starts, %d go on: %s", len(self._supervisor.ready), error)
            self._supervisor.not_started(str(error), time.monotonic(), died=isinstance(error, DeathError))
        else:
            self._ready(worker)
        self._settle()

    def _ready(self, worker: Worker[Any]) -> None:
        self._loading.discard(worker)
        self._supervisor.started(worker, time.monotonic())
        if self._closed:  # too late for ``close`` to end it
            worker.kill()

    def _begun(self) -> Worker[Any]:
        """Return a new worker that has opened the graph and passed the check; runs in a thread, beside all else."""
        worker: Worker[Any] = Worker(functools.partial(begin, self._model), self._batch_seconds)
        self._loading.add(worker)
        try:
            if self._closed:
                raise RuntimeError("closed")
            worker.loaded(LOADING_SECONDS)
            begun: Begun = worker.answer((None,))
            provider, row = begun
            self._check(row)
        except BaseException:
            worker.kill()
            worker.ended()
            self._loading.discard(worker)
            raise
        self.provider = provider
        return worker
