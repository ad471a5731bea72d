"""Images wait in one line; a worker that is idle takes the next ones, and a worker that dies is replaced.

An image that finds a worker idle runs at once, by itself. Images that arrive while all are busy run together, first
come, first served; those whose request was cancelled are dropped. Images of a batch are ranked together, and one that
fails does not affect the others.

A worker that dies, or is ended because a batch takes too long, takes its batch with it. Each of these images runs once
more, by itself, so that only the faulty one fails. ``supervisor`` decides when another worker is started.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.encoders.waiting import TRIAL_SECONDS, in_background
from sar_infer.errors import BundleError, ImageError
from sar_infer.processes.signals import ended_by_deadline
from sar_infer.processes.worker import DeathError, TimeLimitError, Worker
from sar_infer.server.metrics import Cause, Metrics
from sar_infer.server.model.process import Computer, Model, Pixels, Result, Task, begin
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.model.supervisor import PAUSE, Supervisor
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

PHASES = ("decode", "queue", "infer", "score")
HANDED = 8
"""Images handed to a worker at once at most; one by one they take 3 % (8 clients) to 12 % (32) more CPU (ADR 10)."""
_QUICK = 2_000
"""Classes that are ranked on the event loop at most, which takes half a millisecond a row."""
_ENCODING = 10.0
"""Seconds for encoding a batch and for what a busy machine adds."""
_STOPPED_EVERY = 1.0
"""Seconds between two looks for processes that are stopped while they load."""
LOADING_SECONDS = TRIAL_SECONDS + 30
"""Seconds for a process to start, to open its graph and to run it once."""
T = TypeVar("T")
ImageInput = bytes | ImageError
"""Encoded bytes; or why there is no image."""
Finish = Callable[[Floats], Iterable[T]]
"""Returns a value for each of some unit rows (N, D)."""
_log = logging.getLogger("sar_infer.server")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The result of one image: a value, or its own error; seconds by phase; its digest if wanted."""

    value: T | None
    error: ImageError | None
    seconds: Mapping[str, float]
    digest: bytes = b""


@dataclass(eq=False)
class _Item:
    task: Task
    finish: Finish[Any]
    classes: int
    future: asyncio.Future[Outcome[Any]]
    since: float
    alone: bool = False
    """Set once a process has died with it: it runs once more, in no batch with others."""


class Here:
    """A worker that is a thread of this process, and never dies."""

    alive = True

    def __init__(self, compute: Computer) -> None:
        self._compute = compute
        self.thread = ThreadPoolExecutor(1, "worker")

    async def answer_async(self, batch: tuple[Sequence[Task], bool]) -> list[Result]:
        """Return the results of a batch."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._compute, *batch)


AnyWorker = Worker[Any] | Here


class Pool:
    """The line of images and the workers that compute them; all but ``start`` and ``close`` run on one event loop.

    Args:
        sizes: Sizes of workers and batches.
        limits: The seconds that an image may take.
        metrics: Counts batches, images and workers.
        model: What worker processes run.
        check: Called with the row (1, D) of each new process for the self-test image; raises BundleError.
        here: Threads that compute instead of processes.

    Attributes:
        provider: The execution provider of the processes; set by ``start``.
    """

    def __init__(
        self,
        sizes: Sizes,
        limits: Limits,
        metrics: Metrics,
        model: Model | None = None,
        check: Callable[[Floats], object] = lambda _: None,
        here: Sequence[Here] = (),
    ) -> None:
        self.provider = ""
        self._sizes, self._limits, self._metrics = sizes, limits, metrics
        self._model, self._check = model, check
        self._phases = [metrics.phases.labels(phase) for phase in PHASES]
        self._waiting: deque[_Item] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._rankers = ThreadPoolExecutor(sizes.workers, "ranking")
        self._supervisor: Supervisor[AnyWorker] = Supervisor(sizes.workers)
        self._loading: set[Worker[Any]] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._stopped: WeakSet[AnyWorker] = WeakSet()
        self._logged: str | None = None
        self._closed = False
        self._here = here
        for worker in here[: self._supervisor.start(time.monotonic()) if here else 0]:
            self._supervisor.started(worker, time.monotonic())

    def start(self) -> None:
        """Start all processes side by side, and wait until they are ready.

        Raises:
            BundleError: the graph is refused, or a process died or took too long while it opened it.
            DeviceError: the device is not available.
        """
        begun = [in_background(self._begun) for _ in range(self._supervisor.start(time.monotonic()))]
        graph = "" if self._model is None else self._model.graph
        try:
            for future in begun:
                while wait([future], _STOPPED_EVERY).not_done:  # a process that is stopped would be waited for
                    self._end_stopped()
                self._ready(future.result())
        except TimeLimitError:
            raise BundleError(f"{graph}: no worker process was ready within {LOADING_SECONDS:g} s") from None
        except DeathError as error:
            raise BundleError(f"{graph}: {error} while it opened this graph") from None
        except OSError as error:
            raise BundleError(f"{graph}: no worker process can be started ({error.strerror})") from None

    async def each(
        self,
        images: Sequence[ImageInput | Pixels],
        finish: Finish[T],
        classes: int = 0,
        *,
        digests: bool = False,
        first: bool = False,
    ) -> list[Outcome[T]]:
        """Return what ``finish`` makes of the unit row of each image, in order; a bad image fails by itself.

        Args:
            images: Encoded bytes, pixels, or why there is no image.
            finish: Called on the event loop, or in a thread if that would hold it up; with the rows of one batch,
                perhaps of other calls too. What it raises is raised here.
            classes: How many classes ``finish`` ranks.
            digests: Return the digests of the images' pixels too.
            first: Go to the head of the line.

        Raises:
            Problem: ``unavailable``, while the breaker is open.
        """
        loop, now, items = asyncio.get_running_loop(), time.perf_counter(), list[_Item]()
        outcomes: list[Outcome[T] | asyncio.Future[Outcome[T]]] = []
        for image in images:
            if isinstance(image, ImageError):
                outcomes.append(Outcome(None, image, {}))
                continue
            items.append(item := _Item(Task(image, digests), finish, classes, loop.create_future(), now))
            outcomes.append(item.future)
            (self._waiting.appendleft if first else self._waiting.append)(item)
            self._hand_out()  # one by one, so that all workers that are idle get some
        try:
            if len(items) == 1:
                await items[0].future
            else:  # all end, so that none runs on after the answer
                await asyncio.gather(*(item.future for item in items), return_exceptions=True)
        except asyncio.CancelledError:
            for item in items:
                if item in self._waiting:
                    self._waiting.remove(item)
            raise
        return [outcome if isinstance(outcome, Outcome) else outcome.result() for outcome in outcomes]

    def _hand_out(self) -> None:
        """Hand images to idle workers; refuse them while the breaker is open."""
        while self._waiting:
            if self._waiting[0].future.done():  # its caller was cancelled
                self._waiting.popleft()
            elif self._supervisor.fault is not None:
                problem = Problem("unavailable", f"{self._supervisor.fault}; try again", PAUSE)
                self._waiting.popleft().future.set_exception(problem)
            elif (worker := self._supervisor.take()) is None:
                return
            elif not worker.alive:
                self._forget(worker, "idle", "it ended")  # type: ignore[arg-type]  # a thread is always alive
            else:
                self._running.add(asyncio.get_running_loop().create_task(self._work(worker, self._next())))

    def _next(self) -> list[_Item]:
        """Take a batch from the line: more than ``max_batch`` images only if as many wait for each of the workers."""
        batch: list[_Item] = []
        most = max(self._sizes.max_batch, min(HANDED, len(self._waiting) // self._sizes.workers))
        while self._waiting and len(batch) < most and not (batch and (batch[0].alone or self._waiting[0].alone)):
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
        return batch

    async def _work(self, worker: AnyWorker, batch: Sequence[_Item]) -> None:
        self._metrics.batches.observe(len(batch))
        start, lone = time.perf_counter(), len(batch) == len(self._running) == 1
        try:
            results = await worker.answer_async(([item.task for item in batch], lone))
        except DeathError as error:
            cause: Cause = "time" if isinstance(error, TimeLimitError) else "crash"
            self._forget(worker, "silence" if worker in self._stopped else cause, error)  # type: ignore[arg-type]
            self._again(batch, error)
        except Exception as error:  # whatever it is, callers wait for an answer
            self._supervisor.answered(worker)
            self._finish(batch, [Result(error)] * len(batch), start)
        else:
            self._supervisor.answered(worker)
            asyncio.get_running_loop().call_soon(self._finish, batch, results, start)  # when the worker has its next
        self._running.remove(asyncio.current_task())  # type: ignore[arg-type]
        self._hand_out()

    def _again(self, batch: Sequence[_Item], error: DeathError) -> None:
        """Put images whose worker died back to the head of the line; one that was already decoded by itself fails.

        One that was decoded by itself and took too long would do so again.
        """
        late = ended_by_deadline(error.exit_code) and len(batch) == 1
        for item in reversed(batch):
            if not item.alone and not late:
                item.alone = True
                self._waiting.appendleft(item)
            elif item.future.done():
                continue
            elif isinstance(error, TimeLimitError):
                reason = f"it takes more than {self._limits.image_seconds:g} s; scale it down first"
                item.future.set_result(Outcome(None, ImageError(reason), {}))
            elif error.exit_code == -9:  # by a person or for lack of memory: that need not be the image's fault
                item.future.set_exception(Problem("unavailable", "its worker was killed twice; try again", 1))
            else:
                reason = f"decoding it ended a process (exit code {error.exit_code})"
                item.future.set_result(Outcome(None, ImageError(reason), {}))

    def _finish(self, batch: Sequence[_Item], results: Sequence[Result], start: float) -> None:
        """Rank the rows of a batch, those that share ``finish`` together; many classes in a thread."""
        groups: dict[Finish[Any], list[tuple[_Item, Result]]] = {}
        for item, result in zip(batch, results, strict=True):
            if item.future.done():  # its caller was cancelled
                continue
            if isinstance(result.row, ImageError):
                item.future.set_result(Outcome(None, result.row, {}))
            elif isinstance(result.row, Exception):
                item.future.set_exception(result.row)
            else:
                groups.setdefault(item.finish, []).append((item, result))

        def resolve(group: Sequence[tuple[_Item, Result]], values: Sequence[Any], score: float) -> None:
            for (item, result), value in zip(group, values, strict=True):
                if item.future.done():
                    continue
                if isinstance(value, Exception):
                    item.future.set_exception(value)
                    continue
                spent = (result.decode, start - item.since + result.queue, result.infer, score)
                for histogram, seconds in zip(self._phases, spent, strict=True):
                    histogram.observe(seconds)
                self._metrics.images.inc()
                item.future.set_result(Outcome(value, None, dict(zip(PHASES, spent, strict=True)), result.digest))

        for finish, group in groups.items():
            rows = np.concatenate([result.row for _, result in group])
            if group[0][0].classes <= _QUICK:
                resolve(group, *_ranked(finish, rows))
            else:
                ranked = asyncio.get_running_loop().run_in_executor(self._rankers, _ranked, finish, rows)
                ranked.add_done_callback(lambda done, group=group: resolve(group, *done.result()))  # type: ignore[misc]

    def tend(self) -> None:
        """Start what is missing, and end processes that were stopped or died idle; to be called now and then."""
        if self._model is None:
            return
        self._end_stopped()
        for worker in self._processes:
            if self._supervisor.ready[worker] == "busy":  # its callers get an error
                continue
            if worker in self._stopped:
                self._forget(worker, "silence", "it was stopped")
            elif not worker.alive:
                self._forget(worker, "idle", "it ended")
        self._replace()

    def _end_stopped(self) -> None:
        for worker in (*self._loading, *self._processes):
            if worker.stopped:
                self._stopped.add(worker)
                worker.kill()

    def close(self) -> None:
        """End all workers; nothing may wait for one. Called from any thread once the event loop has ended."""
        self._closed = True
        self._rankers.shutdown(wait=False)
        for here in self._here:
            here.thread.shutdown(wait=False)
        ready = self._processes
        for worker in (*self._loading, *ready):
            worker.kill()  # a thread waits for one that loads, and gets an error
        for worker in ready:
            worker.dismiss()
        in_background(lambda: [worker.ended() for worker in ready])

    @property
    def _processes(self) -> list[Worker[Any]]:
        return [worker for worker in [*self._supervisor.ready] if isinstance(worker, Worker)]

    @property
    def pids(self) -> list[int]:
        """Return the identifiers of the processes that are ready."""
        return [worker.pid for worker in self._processes]

    def _forget(self, worker: Worker[Any], cause: Cause, reason: object) -> None:
        """Count a worker that has ended; crashes in a row open the breaker, other causes are rare enough."""
        if self._closed:
            return
        self._supervisor.gone(worker, str(reason), time.monotonic(), at_work=cause == "crash")
        worker.dismiss()
        self._metrics.deaths.labels(cause).inc()
        _log.warning("worker process %s is gone: %s", worker.pid, reason)
        self._replace()

    def _replace(self) -> None:
        """Start the workers that are missing, as the supervisor decides."""
        if self._closed:
            return
        fault = self._supervisor.fault
        if fault is not None and fault != self._logged:
            _log.error("no work for %g s: %s", PAUSE, fault)
        self._logged = fault
        for _ in range(self._supervisor.start(time.monotonic())):
            starting = asyncio.get_running_loop().create_task(self._start())
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)
        self._metrics.workers.set(len(self._supervisor.ready))
        self._hand_out()

    async def _start(self) -> None:
        try:
            worker = await asyncio.wrap_future(in_background(self._begun))
        except Exception as error:  # a full machine, a file that is gone, a death: all the same here
            if not self._closed:
                _log.warning("no worker process starts, %d go on: %s", len(self._supervisor.ready), error)
            self._supervisor.not_started(str(error), time.monotonic(), died=isinstance(error, DeathError))
        else:
            self._ready(worker)
        self._replace()

    def _ready(self, worker: Worker[Any]) -> None:
        self._loading.discard(worker)
        self._supervisor.started(worker, time.monotonic())
        if self._closed:  # too late for ``close`` to end it
            worker.kill()

    def _begun(self) -> Worker[Any]:
        """Return a new process that has opened the graph and passed the check; runs in a thread of its own."""
        load = functools.partial(begin, self._model)  # type: ignore[arg-type]
        worker: Worker[Any] = Worker(load, 2 * self._limits.image_seconds + _ENCODING)
        self._loading.add(worker)
        try:
            if self._closed:
                raise RuntimeError("closed")
            self.provider, row = worker.loaded(LOADING_SECONDS)
            self._check(row)
        except BaseException:
            worker.kill()
            worker.ended()
            self._loading.discard(worker)
            raise
        return worker


def _ranked(finish: Finish[T], rows: Floats) -> tuple[list[T | Exception], float]:
    """Return the value of each row, or its error, and the seconds that all of them took."""
    start = time.perf_counter()
    try:
        values: list[T | Exception] = [*finish(rows)]
    except Exception as error:
        values = [error] if len(rows) == 1 else [_ranked(finish, row[np.newaxis])[0][0] for row in rows]
    return values, time.perf_counter() - start
