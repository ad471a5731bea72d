"""The worker processes of an engine, seen from the front: each is watched, and one that dies is replaced.

One that is idle is asked for a sign of life now and then, and ended if it gives none, or if it has grown out of all
proportion.

A batch goes to a worker that is idle, over a pipe of its own. A worker that dies, or is ended because a batch takes too
long, takes only that batch with it (``batcher`` says what becomes of it), and another is started at once. If they die
one after the other without an answer, or none is left and none can be started, no more are started for a while, and
work is refused: a breaker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.encoders.waiting import TRIAL_SECONDS, in_background
from sar_infer.errors import BundleError
from sar_infer.processes.worker import DeathError, TimeLimitError, Worker
from sar_infer.server.metrics import Cause, Metrics
from sar_infer.server.model.encoding import Computed
from sar_infer.server.model.memory import Encoded, Pixels
from sar_infer.server.model.process import Answer, Begun, Model, Task, begin
from sar_infer.server.model.sizing import resident
from sar_infer.server.problems import Problem

_log = logging.getLogger("sar_infer.server")
_MOST_DEATHS = 10
"""Workers that may die in a row, without an answer between, before the breaker opens."""
_PAUSE = 10.0
"""Seconds that the breaker stays open, and between tries to start a worker that is missing."""
HANDED = 8
"""Images handed to a worker at once at most; handing over costs the front much, however many they are."""
_GONE = RuntimeError("the request was cancelled")
_NOTHING = Answer(Computed([], [], [], []), {})
_ENCODING = 10.0
"""Seconds for encoding a batch and for what a busy machine adds."""
_HEARTBEAT = 10.0
"""Seconds after which a worker that is idle is asked for a sign of life; it has as long to answer."""
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
        alone: An image beside which nothing runs is encoded on all cores; see ``settle``.
        batch: Images that are encoded together at most; None: as many as are handed over. See ``settle``.
    """

    def __init__(
        self, model: Model, count: int, metrics: Metrics, check: Callable[[Begun], object] = lambda _: None
    ) -> None:
        self.provider = ""
        self.count = count
        self.alone = False
        self.batch: int | None = None
        self.batch_seconds = 2 * model.image_seconds + _ENCODING
        self._check = check
        self._metrics = metrics
        self._changed = threading.Condition()  # held for all that follows
        self._idle: list[Worker[Any]] = []
        self._line: deque[object] = deque()
        self._ready: dict[Worker[Any], int] = {}  # with the bytes each held at its start
        self._heard: dict[Worker[Any], float] = {}
        self._loading: set[Worker[Any]] = set()
        self._starting = 0
        self._deaths = 0
        self._broken: tuple[float, str] | None = None
        self._failed = 0.0
        self._closed = False
        graph = model.graph
        self._name, self._begins = ("decoders", "started") if graph is None else (graph.path, "opened this graph")
        self._model = model

    def start(self) -> None:
        """Start all workers side by side, and wait until they are ready.

        Raises:
            BundleError: the graph is refused, or a worker died or took too long while it opened it.
            DeviceError: the device is not available.
        """
        begun = [in_background(self._begun) for _ in range(self.count)]
        try:
            for future in begun:
                self._add(future.result())
        except TimeLimitError:
            raise BundleError(f"{self._name}: no worker process was ready within {LOADING_SECONDS:g} s") from None
        except DeathError as error:
            raise BundleError(f"{self._name}: {error} while it {self._begins}") from None

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
            answer = self._run([*tasks.values()], alone and self.alone) if tasks else _NOTHING
        computed = answer.computed
        for n, i in enumerate(tasks):
            rows[i], queue[i] = computed.rows[n], computed.queue[n]
            decode[i], infer[i] = computed.decode[n], computed.infer[n]
            image = images[i]
            if n in answer.digests and isinstance(image, Encoded) and image.note is not None:
                image.note(answer.digests[n])
        return Computed(rows, queue, decode, infer)

    def _run(self, tasks: Sequence[Task], alone: bool) -> Answer:
        worker = self._idle_worker()
        try:
            answer: Answer = worker.answer((tasks, alone, self.batch))
        except DeathError as error:
            self._died(worker, error)
            raise
        except BaseException:
            self._put_back(worker)
            raise
        self._deaths = 0
        self._put_back(worker)
        return answer

    def encode(self, pixels: Sequence[Floats], alone: bool = False) -> Floats:
        """Return unit rows (N, D) for N inputs of the encoder, for a measurement; a worker that dies is not replaced.

        Raises:
            BundleError: the graph takes too long, or fails.
        """
        worker = self._idle_worker()
        try:
            answer: Answer = worker.answer(([Task(image) for image in pixels], alone))
        except TimeLimitError:
            raise BundleError(f"{self._name}: the graph has given no answer within {self.batch_seconds:g} s") from None
        except DeathError as error:
            raise BundleError(f"{self._name}: {error} while it ran this graph") from None
        self._put_back(worker)
        rows = answer.computed.rows
        for row in rows:
            if isinstance(row, Exception):
                raise row
        return np.concatenate([row for row in rows if not isinstance(row, Exception)])

    def settle(self, alone: bool, batch: int) -> None:
        """Set ``alone``, by whether it pays, and ``batch``. If not, the worker that tried it frees the memory.

        Raises:
            BundleError: a worker died.
        """
        self.alone, self.batch = alone, batch
        if alone:
            return
        if self._model.graph is not None:
            self._model = dataclasses.replace(self._model, graph=dataclasses.replace(self._model.graph, alone=0))
        with self._changed:
            workers = list(self._idle)
        for worker in workers:
            try:
                worker.answer((None, False))
            except DeathError as error:
                raise BundleError(f"{self._name}: {error} while it closed this graph") from None

    def tend(self) -> None:
        """Replace workers that are missing, died idle or show no life, and close the breaker once its time is over."""
        now = time.monotonic()
        with self._changed:
            for worker in [worker for worker in self._idle if not worker.alive]:
                self._idle.remove(worker)
                self._forget(worker, "idle")
            for worker in [worker for worker in self._idle if now - self._heard[worker] > _HEARTBEAT]:
                self._idle.remove(worker)
                in_background(functools.partial(self._listen, worker))
            if self._paused and not self._starting:
                self._deaths = _MOST_DEATHS - 1  # one more opens it again
                if self._ready:
                    self._mend()
                else:
                    self._replace(1)
            elif not self._broken and now - self._failed > _PAUSE:  # one that could not be started is tried again
                self._replace(self.count - len(self._ready) - self._starting)

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            workers = [*self._ready, *self._loading]
            self._changed.notify_all()
        for worker in workers:
            worker.kill()
        in_background(lambda: self._reap(workers))

    @property
    def pids(self) -> list[int]:
        """Return the identifiers of all processes."""
        with self._changed:
            return [worker.pid for worker in self._ready if worker.pid is not None]

    def _begun(self) -> Worker[Any]:
        """Return a new worker that has opened the graph and passed the check."""
        worker: Worker[Any] = Worker(functools.partial(begin, self._model), self.batch_seconds)
        try:
            with self._changed:
                if self._closed:
                    raise RuntimeError("closed")
                self._loading.add(worker)
            worker.loaded(LOADING_SECONDS)
            begun: Begun = worker.answer((None, True))
            self._check(begun)
        except BaseException:
            worker.kill()
            worker.dismiss()
            worker.ended()
            raise
        finally:
            with self._changed:
                self._loading.discard(worker)
        self.provider = begun.provider
        return worker

    def _add(self, worker: Worker[Any]) -> None:
        with self._changed:
            if self._closed:
                worker.kill()
                return
            self._ready[worker] = 0 if worker.pid is None else resident(worker.pid)
            self._heard[worker] = time.monotonic()
            self._idle.append(worker)
            self._metrics.workers.set(len(self._ready))
            self._changed.notify_all()

    def _idle_worker(self) -> Worker[Any]:
        """Return an idle worker; threads that wait for one get it in the order in which they came."""
        turn = object()
        with self._changed:
            self._line.append(turn)
            try:
                while True:
                    if self._broken or self._closed:
                        reason = self._broken[1] if self._broken else "shutting down"
                        raise Problem("unavailable", f"{reason}; try again", _PAUSE)
                    while self._idle and self._line[0] is turn:
                        worker = self._idle.pop()
                        if worker.alive:
                            return worker
                        self._forget(worker, "idle")
                    self._changed.wait()
            finally:
                self._line.remove(turn)
                self._changed.notify_all()

    def _listen(self, worker: Worker[Any]) -> None:
        """Wait for a sign of life, and put the worker back if it is in order."""
        try:
            worker.answer((None, self.alone), _HEARTBEAT)
        except DeathError as error:
            with self._changed:
                self._forget(worker, "silence" if isinstance(error, TimeLimitError) else "idle", error)
            return
        held, start = 0 if worker.pid is None else resident(worker.pid), self._ready.get(worker, 0)
        if held > 2 * start + _GROWTH:
            worker.kill()
            worker.ended()
            with self._changed:
                self._forget(worker, "memory", f"it held {held / 2**20:.0f} MiB, {start / 2**20:.0f} MiB at its start")
            return
        self._put_back(worker)

    def _put_back(self, worker: Worker[Any]) -> None:
        with self._changed:
            self._heard[worker] = time.monotonic()
            self._idle.append(worker)
            self._changed.notify_all()

    def _died(self, worker: Worker[Any], error: DeathError) -> None:
        with self._changed:
            late = isinstance(error, TimeLimitError)  # such are rare enough by themselves
            self._deaths += not late
            self._forget(worker, "time" if late else "crash", error)

    def _forget(self, worker: Worker[Any], why: Cause, error: object = "it ended") -> None:
        """Count a death, and start another worker if there is hope."""
        if self._closed:
            return
        self._ready.pop(worker, None)
        self._heard.pop(worker, None)
        worker.dismiss()
        self._metrics.deaths.labels(why).inc()
        self._metrics.workers.set(len(self._ready))
        _log.warning("worker process %s is gone: %s", worker.pid, error)
        if self._deaths >= _MOST_DEATHS:
            self._break(f"{self._deaths} worker processes died one after the other (the last: {error})")
        if not self._broken:
            self._replace(self.count - len(self._ready) - self._starting)

    def _break(self, reason: str) -> None:
        self._broken = time.monotonic(), reason
        self._changed.notify_all()
        _log.error("no workers for %g s: %s", _PAUSE, reason)

    @property
    def _paused(self) -> bool:
        """Return whether the breaker is open and its time is over."""
        return self._broken is not None and time.monotonic() - self._broken[0] > _PAUSE

    def _mend(self) -> None:
        """Close the breaker, and start what workers are missing."""
        self._broken = None
        self._replace(self.count - len(self._ready) - self._starting)
        self._changed.notify_all()

    def _replace(self, number: int) -> None:
        for _ in range(number):
            self._starting += 1
            in_background(self._restart)

    def _restart(self) -> None:
        try:
            worker = self._begun()
        except Exception as error:  # a full machine, a file that is gone, a death: all the same here
            with self._changed:
                self._starting -= 1
                if self._closed:
                    return
                if self._ready and not isinstance(error, DeathError):
                    self._failed = time.monotonic()
                    _log.warning("no worker process starts, %d go on: %s", len(self._ready), error)
                    return
                self._deaths += 1
                if self._deaths >= _MOST_DEATHS or not isinstance(error, DeathError):
                    self._break(f"no worker process starts: {error}")
                else:
                    self._replace(1)
            return
        with self._changed:
            self._starting -= 1
            self._add(worker)
            if self._paused and not self._closed:
                self._mend()

    def _reap(self, workers: Sequence[Worker[Any]]) -> None:
        for worker in workers:
            worker.ended()


def described(error: DeathError, seconds: float) -> str:
    """Return why an image is refused that ended the process that decoded it."""
    if isinstance(error, TimeLimitError):
        return f"it takes more than {seconds:g} s; scale it down first"
    return f"decoding it ended a process (exit code {error.exit_code})"
