"""The worker processes of an engine, seen from the front: batches go to those that are idle, and the dead are replaced.

A batch goes to one worker over a pipe of its own. A worker that dies, or is ended because a batch takes too long, takes
only that batch with it (``batcher`` says what becomes of it). ``supervisor`` says when another is started, or none for
a while.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from sar_infer._arrays import Floats
from sar_infer.encoders.waiting import TRIAL_SECONDS, in_background
from sar_infer.errors import BundleError
from sar_infer.processes.worker import DeathError, TimeLimitError, Worker
from sar_infer.server.metrics import Cause, Metrics
from sar_infer.server.model.encoding import Computed
from sar_infer.server.model.memory import Encoded, Pixels
from sar_infer.server.model.process import Answer, Begun, Model, Task, begin
from sar_infer.server.model.sizing import resident
from sar_infer.server.model.supervisor import PAUSE, Supervisor
from sar_infer.server.problems import Problem

_log = logging.getLogger("sar_infer.server")
HANDED = 8
"""Images handed to a worker at once at most; handing over costs the front much, however many they are."""
_GONE = RuntimeError("the request was cancelled")
_NOTHING = Answer(Computed([], [], [], []), {})
_ENCODING = 10.0
"""Seconds for encoding a batch and for what a busy machine adds."""
_GROWTH = 512 * 2**20
"""Bytes that an idle worker may hold beyond twice those of its start; it has no image then, so the rest is leaked."""
LOADING_SECONDS = TRIAL_SECONDS + 30
"""Seconds for a process to start, to open its graph and to run it once."""


class Workers:
    """Processes that compute batches; safe to share between threads.

    Args:
        model: What they run.
        count: How many.
        metrics: Counts those that live and those that died.
        check: Is told what each new one says of itself; raises BundleError if it cannot be used.

    Attributes:
        provider: The execution provider that they run on; set by ``start``.
        count: How many there are.
    """

    def __init__(self, model: Model, count: int, metrics: Metrics, check: Callable[[Begun], object]) -> None:
        self.provider = ""
        self.count = count
        self.batch_seconds = 2 * model.image_seconds + _ENCODING
        self._model = model
        self._check = check
        self._metrics = metrics
        self._lock = threading.Lock()  # held for all that follows, and for nothing that takes time
        self._supervisor: Supervisor[Worker[Any]] = Supervisor(count)
        self._line: deque[Future[Worker[Any]]] = deque()
        self._loading: set[Worker[Any]] = set()
        self._ending: dict[Worker[Any], Cause] = {}
        self._closed = False

    def start(self) -> None:
        """Start all workers side by side, and wait until they are ready.

        Raises:
            BundleError: the graph is refused, or a worker died or took too long while it opened it.
            DeviceError: the device is not available.
        """
        with self._lock:
            count = self._supervisor.start(time.monotonic())
        begun = [in_background(lambda: self._ready(self._begun())) for _ in range(count)]
        graph = self._model.graph.path
        try:
            for future in begun:
                future.result()
        except TimeLimitError:
            raise BundleError(f"{graph}: no worker process was ready within {LOADING_SECONDS:g} s") from None
        except DeathError as error:
            raise BundleError(f"{graph}: {error} while it opened this graph") from None

    def compute(self, images: Sequence[Encoded | Pixels], alone: bool = False) -> Computed:
        """Return a row or an error for each image of a batch, from the next worker that is idle.

        ``alone`` says that nothing else runs.

        Raises:
            DeathError: the worker died (``TimeLimitError`` if it took too long).
            Problem: ``unavailable``, while the breaker is open.
        """
        rows: list[Floats | Exception] = [_GONE] * len(images)
        queue, decode, infer = ([0.0] * len(images) for _ in range(3))
        with contextlib.ExitStack() as shares:
            tasks = {}
            for i, image in enumerate(images):
                if not isinstance(image, Encoded):
                    tasks[i] = Task(image)
                    continue
                with contextlib.suppress(RuntimeError):  # the request was cancelled
                    shares.enter_context(image.share.used())
                    tasks[i] = Task(image.data, image.share.amount, image.note is not None)
            answer = self._run([*tasks.values()], alone) if tasks else _NOTHING
        computed = answer.computed
        for n, i in enumerate(tasks):
            rows[i], queue[i] = computed.rows[n], computed.queue[n]
            decode[i], infer[i] = computed.decode[n], computed.infer[n]
            image = images[i]
            if n in answer.digests and isinstance(image, Encoded) and image.note is not None:
                image.note(answer.digests[n])
        return Computed(rows, queue, decode, infer)

    def tend(self) -> None:
        """Start what is missing, and end workers that were stopped, died idle or grew; to be called now and then."""
        with self._lock:
            workers, loading = {worker: ready.memory for worker, ready in self._supervisor.ready.items()}, self._loading
            stopped = [worker for worker in (*workers, *loading) if worker.stopped]
            for worker in stopped:
                self._ending.setdefault(worker, "silence")
                worker.kill()
            for worker, memory in workers.items():
                if self._supervisor.ready[worker].state == "busy":
                    continue  # whoever waits for its answer is told
                held = 0 if worker.pid is None else resident(worker.pid)
                if worker in stopped:
                    self._forget(worker, "it was stopped")
                elif not worker.alive:
                    self._forget(worker, "it ended")
                elif held > 2 * memory + _GROWTH:
                    self._ending[worker] = "memory"
                    worker.kill()
                    self._forget(worker, f"it held {held / 2**20:.0f} MiB, {memory / 2**20:.0f} MiB at its start")
            self._settle()

    def close(self) -> None:
        """End all workers; what waits for one is refused."""
        with self._lock:
            workers = [] if self._closed else [*self._supervisor.ready, *self._loading]
            self._closed = True
            self._settle()
        for worker in workers:
            worker.kill()
        in_background(lambda: [worker.ended() for worker in workers])

    @property
    def pids(self) -> list[int]:
        """Return the identifiers of the processes that are ready."""
        with self._lock:
            return [worker.pid for worker in self._supervisor.ready if worker.pid is not None]

    def _run(self, tasks: Sequence[Task], alone: bool) -> Answer:
        worker = self._idle_worker()
        try:
            answer: Answer = worker.answer((tasks, alone))
        except DeathError as error:
            with self._lock:
                cause = self._ending.setdefault(worker, "time" if isinstance(error, TimeLimitError) else "crash")
                self._forget(worker, error, at_work=cause == "crash")  # the others are rare enough by themselves
                self._settle()
            raise
        except BaseException:
            self._idle(worker)
            raise
        self._idle(worker)
        return answer

    def _idle_worker(self) -> Worker[Any]:
        """Return an idle worker; threads that wait for one get it in the order in which they came."""
        waiting: Future[Worker[Any]] = Future()
        with self._lock:
            self._line.append(waiting)
            self._settle()
        try:
            return waiting.result(LOADING_SECONDS + self.batch_seconds)
        except TimeoutError:
            with self._lock:
                if waiting in self._line:
                    self._line.remove(waiting)
                    raise Problem("unavailable", "no worker process is free; try again", PAUSE) from None
            return waiting.result()

    def _idle(self, worker: Worker[Any]) -> None:
        with self._lock:
            self._supervisor.answered(worker)
            self._settle()

    def _forget(self, worker: Worker[Any], reason: object, *, at_work: bool = False) -> None:
        """Count a worker that has ended."""
        if self._closed:
            return
        self._supervisor.gone(worker, str(reason), time.monotonic(), at_work=at_work)
        worker.dismiss()
        self._metrics.deaths.labels(self._ending.pop(worker, "idle")).inc()
        _log.warning("worker process %s is gone: %s", worker.pid, reason)

    def _settle(self) -> None:
        """Hand idle workers to those who wait, or refuse them, and start what is missing, as the states have it."""
        while self._line and (worker := None if self._closed else self._supervisor.take()) is not None:
            if worker.alive:
                self._line.popleft().set_result(worker)
            else:
                self._forget(worker, "it ended")
        fault = "shutting down" if self._closed else self._supervisor.fault
        while self._line and fault is not None:
            self._line.popleft().set_exception(Problem("unavailable", f"{fault}; try again", PAUSE))
        if self._closed:
            return
        for _ in range(self._supervisor.start(time.monotonic())):
            in_background(self._start)
        self._metrics.workers.set(len(self._supervisor.ready))

    def _start(self) -> None:
        try:
            worker = self._begun()
        except Exception as error:  # a full machine, a file that is gone, a death: all the same here
            with self._lock:
                if not self._closed:
                    _log.warning("no worker process starts, %d go on: %s", len(self._supervisor.ready), error)
                self._supervisor.not_started(str(error), time.monotonic(), died=isinstance(error, DeathError))
                self._settle()
            return
        self._ready(worker)

    def _ready(self, worker: Worker[Any]) -> None:
        memory = 0 if worker.pid is None else resident(worker.pid)
        with self._lock:
            self._supervisor.started(worker, memory, time.monotonic())
            self._settle()
            closed = self._closed
        if closed:  # too late for ``close`` to end it
            worker.kill()

    def _begun(self) -> Worker[Any]:
        """Return a new worker that has opened the graph and passed the check; no lock is held while it starts."""
        worker: Worker[Any] = Worker(functools.partial(begin, self._model), self.batch_seconds)
        try:
            with self._lock:
                if self._closed:
                    raise RuntimeError("closed")
                self._loading.add(worker)
            worker.loaded(LOADING_SECONDS)
            begun: Begun = worker.answer((None,))
            self._check(begun)
        except BaseException:
            worker.kill()
            worker.dismiss()
            worker.ended()
            raise
        finally:
            with self._lock:
                self._loading.discard(worker)
                self._ending.pop(worker, None)
        self.provider = begun.provider
        return worker


def described(error: DeathError, seconds: float) -> str:
    """Return why an image is refused that ended the process that decoded it."""
    if isinstance(error, TimeLimitError):
        return f"it takes more than {seconds:g} s; scale it down first"
    return f"decoding it ended a process (exit code {error.exit_code})"
