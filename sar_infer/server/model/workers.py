"""Compute images in threads of this process, or in processes that are watched and replaced.

A worker that is idle is taken as a function of a batch. A process that dies, or is ended because a batch takes too
long, is replaced; ``supervisor`` decides when.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from sar_infer._arrays import Floats
from sar_infer.classifier import Classifier
from sar_infer.encoders.self_test import SelfTest
from sar_infer.encoders.waiting import TRIAL_SECONDS, in_background
from sar_infer.errors import BundleError
from sar_infer.processes.worker import DeathError, TimeLimitError, Worker
from sar_infer.server.metrics import Cause, Metrics
from sar_infer.server.model.process import Computer, Result, Task, begin
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.model.supervisor import Supervisor
from sar_infer.server.settings import Limits, Settings

_ENCODING = 10.0
"""Seconds for encoding a batch and for what a busy machine adds."""
_STOPPED_EVERY = 1.0
"""Seconds between two looks for processes that are stopped while they load."""
LOADING_SECONDS = TRIAL_SECONDS + 30
"""Seconds for a process to start, to open its graph and to run it once."""
Compute = Callable[[Sequence[Task], bool], Awaitable[list[Result]]]
"""Returns the results of a batch; True says that nothing else runs. Raises DeathError if its process has ended."""
_log = logging.getLogger("sar_infer.server")


class Threads:
    """Threads of this process, which never die; used as ``Processes`` are."""

    fault = None

    def __init__(self, classifier: Classifier, limits: Limits, sizes: Sizes) -> None:
        self.changed: Callable[[], object] = lambda: None
        self.provider = ""
        self._classifier, self._most, self._idle = classifier, sizes.max_batch, sizes.workers
        self._threads = ThreadPoolExecutor(sizes.workers, "worker")
        self._decoders = ThreadPoolExecutor(sizes.decoders, "decoder")
        encode = lambda inputs, _: classifier.embed_inputs(inputs)  # noqa: E731
        each = map if sizes.max_batch == 1 else self._decoders.map
        self._compute = Computer(classifier.bundle.manifest.preprocess, limits, encode, sizes.max_batch, each)

    def start(self) -> None:
        """Open the graph and run it, also in batches, as it may fail, or never end, only in these.

        Raises:
            BundleError: the graph is refused, or does not compute what it did at export, or takes too long.
            DeviceError: the device is not available.
        """
        self.provider = self._classifier.start(self_test=True)
        if self._most > 1:
            self._classifier.embed_inputs([self._classifier.self_test.pixels] * self._most, TRIAL_SECONDS)

    def take(self) -> Compute | None:
        """Return an idle thread, which is busy until its results are there; None if all are busy."""
        if not self._idle:
            return None
        self._idle -= 1
        return self._answer

    async def _answer(self, tasks: Sequence[Task], alone: bool) -> list[Result]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._compute, tasks, alone)
        finally:
            self._idle += 1

    def tend(self) -> None:
        """Do nothing: threads need no care."""

    def close(self) -> None:
        """Let the threads end."""
        self.changed = lambda: None
        self._threads.shutdown(wait=False)
        self._decoders.shutdown(wait=False)


class Processes:
    """Worker processes; all but ``start`` and ``close`` run on one event loop.

    Args:
        classifier: Has the bundle, and the self-test that each process must pass.
        settings: Name the device, and limit images.
        sizes: How many there are, and what each may use.
        metrics: Counts them.

    Attributes:
        provider: The execution provider of the processes; set by ``start``.
        supervisor: The states of those that are there.
        changed: Called when one has become idle by itself, or when ``fault`` has changed.
    """

    def __init__(self, classifier: Classifier, settings: Settings, sizes: Sizes, metrics: Metrics) -> None:
        self.changed: Callable[[], object] = lambda: None
        self.provider = ""
        self.supervisor: Supervisor[Worker[list[Result]]] = Supervisor(sizes.workers)
        bundle, choice, device = classifier.bundle, classifier.choice, settings.device
        self._graph, self._batch_seconds = bundle.path / choice.image, 2 * settings.limits.image_seconds + _ENCODING
        self._load = functools.partial(
            begin, self._graph, bundle.manifest, device, choice.precision, sizes, settings.limits, TRIAL_SECONDS
        )
        self._check: Callable[[Floats], object] = lambda row: SelfTest(bundle, choice, device, lambda _: row).run()
        self._metrics = metrics
        self._loading: set[Worker[Any]] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def fault(self) -> str | None:
        """Return why no process can be had, or None."""
        return self.supervisor.fault

    def start(self) -> None:
        """Start all processes side by side, and wait until they are ready.

        Raises:
            BundleError: the graph is refused, or a process died or took too long while it opened it.
            DeviceError: the device is not available.
        """
        begun = [in_background(self._begun) for _ in range(self.supervisor.start(time.monotonic()))]
        try:
            for future in begun:
                while wait([future], _STOPPED_EVERY).not_done:  # a process that is stopped would be waited for
                    self._end_stopped()
                self._ready(future.result())
        except DeathError as error:
            raise BundleError(f"{self._graph}: {error} while it opened this graph") from None
        except OSError as error:
            raise BundleError(f"{self._graph}: no worker process can be started ({error.strerror})") from None

    def take(self) -> Compute | None:
        """Return an idle process, which is busy until its results are there; None if all are busy."""
        while (worker := self.supervisor.take()) is not None:
            if worker.alive:
                return functools.partial(self._answer, worker)
            self._forget(worker, "idle", "it ended")
        return None

    async def _answer(self, worker: Worker[list[Result]], tasks: Sequence[Task], alone: bool) -> list[Result]:
        try:
            return await worker.answer_async((tasks, alone))
        except DeathError as error:
            self._forget(worker, "time" if isinstance(error, TimeLimitError) else "crash", error)
            raise
        finally:
            if worker in self.supervisor.ready:
                self.supervisor.answered(worker)

    def tend(self) -> None:
        """Start what is missing, and end processes that were stopped or died idle."""
        self._end_stopped()
        for worker, state in [*self.supervisor.ready.items()]:
            if state == "idle" and not worker.alive:  # callers of others get an error
                self._forget(worker, "idle", "it ended")
        self._replace()

    def _end_stopped(self) -> None:
        for worker in (*self._loading, *self.supervisor.ready):
            if worker.stopped:
                worker.kill()

    def close(self) -> None:
        """End all processes; nothing may wait for one. Called from any thread once the event loop has ended."""
        self._closed = True
        self.changed = lambda: None  # a cycle of objects that were frozen would stay, with all pipes
        ready = [*self.supervisor.ready]
        for worker in (*self._loading, *ready):
            worker.kill()  # a thread waits for one that loads, and gets an error
        for worker in ready:
            worker.dismiss()
        in_background(lambda: [worker.ended() for worker in ready])

    def _forget(self, worker: Worker[Any], cause: Cause, reason: object) -> None:
        """Count a worker that has ended, and start another."""
        if self._closed:
            return
        self.supervisor.gone(worker)
        worker.dismiss()
        self._metrics.deaths.labels(cause).inc()
        _log.warning("worker process %s is gone: %s", worker.pid, reason)
        self._replace()

    def _replace(self) -> None:
        """Start the workers that are missing, as the supervisor decides."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        for _ in range(self.supervisor.start(time.monotonic())):
            starting = loop.create_task(self._start())
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)
        self._metrics.workers.set(len(self.supervisor.ready))
        loop.call_soon(self.changed)

    async def _start(self) -> None:
        try:
            worker = await asyncio.wrap_future(in_background(self._begun))
        except Exception as error:  # a full machine, a file that is gone, a death: all the same here
            if not self._closed:
                _log.error("no worker process starts, %d go on: %s", len(self.supervisor.ready), error)
            self.supervisor.not_started(str(error), time.monotonic())
        else:
            self._ready(worker)
        self._replace()

    def _ready(self, worker: Worker[list[Result]]) -> None:
        self._loading.discard(worker)
        self.supervisor.started(worker)
        if self._closed:  # too late for ``close`` to end it
            worker.kill()

    def _begun(self) -> Worker[list[Result]]:
        """Return a new process that has opened the graph and passed the check; runs in a thread of its own."""
        worker: Worker[list[Result]] = Worker(self._load, self._batch_seconds)
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


Workers = Threads | Processes
