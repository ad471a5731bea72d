"""A pool of workers: tasks go to whichever is free, and one that dies or takes too long is replaced.

Each task is sent to one worker, once, and its future is resolved once: with the answer, with what the task raised, or
with ``DeathError``. Whether to try again is for the caller to say, who knows what a task is.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic

from sar_infer.processes.worker import Answer, DeathError, Load, Worker

_MOST_FAILED = 3
"""Workers that may die in a row while they load."""
_LOADING_SECONDS = 600.0
"""Seconds for a process to start and load: a large bundle may come from a slow disk. ``load`` may set itself less."""


class StartError(RuntimeError):
    """No worker can start; the cause is what ``load`` raised, or how the last one ended."""


class WorkerPool(Generic[Answer]):
    """Processes that answer tasks, each watched by a thread of this process.

    Workers are started as tasks come, or all at once by ``start``. To replace one by hand, kill it.

    Args:
        load: Called without arguments in each new process; returns what is called there with each task. It is
            pickled, and so are tasks and answers.
        workers: The most processes.
        fresh: Whether each task has a process of its own, which ends with it.
    """

    def __init__(self, load: Load[Answer], workers: int, *, fresh: bool = False) -> None:
        self._load, self._size, self._fresh = load, workers, fresh
        self._threads = ThreadPoolExecutor(workers)
        self._lock = threading.Lock()  # of all that follows
        self._workers: set[Worker[Answer]] = set()
        self._idle: list[Worker[Answer]] = []
        self._failed = 0
        self._refusal: Exception | None = None
        self._closed = False

    def __enter__(self) -> WorkerPool[Answer]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(now=kind is not None)  # after an error nobody waits for answers, and one may never come

    @property
    def pids(self) -> list[int]:
        """Return the identifiers of all processes."""
        with self._lock:
            return [worker.pid for worker in self._workers]

    def start(self) -> None:
        """Start all workers and wait until they are ready.

        Raises:
            StartError: one of them cannot start.
        """
        starting = [self._threads.submit(self._started) for _ in range(self._size)]
        for worker in [future.result() for future in starting]:
            self._put_back(worker)

    def submit(self, *task: Any) -> Future[Answer]:
        """Queue a task and return the future of its answer.

        The future raises ``DeathError`` if the process ended before it answered (``TimeLimitError`` if it took too
        long), ``StartError`` if there is no process, or what the task raised, with its traceback as a note.
        """
        return self._threads.submit(self._answer, task)

    def close(self, *, now: bool = False) -> None:
        """End all workers: when they have answered the task they are at, or ``now``. What waits is cancelled."""
        with self._lock:
            self._closed = True
            workers = list(self._workers) if now else []
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()
        self._threads.shutdown()
        for worker in self._workers:
            worker.dismiss()
        while self._workers:
            self._workers.pop().ended()

    def _answer(self, task: tuple[Any, ...]) -> Answer:
        worker = self._idle_worker()
        try:
            return worker.answer(task)
        finally:
            if self._fresh:
                worker.ended()
            self._put_back(worker)

    def _idle_worker(self) -> Worker[Answer]:
        """Return a worker that waits, or else a new one; those that died waiting are forgotten."""
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                self._workers.discard(worker)
        return self._started()

    def _put_back(self, worker: Worker[Answer]) -> None:
        with self._lock:
            if worker.alive:
                self._idle.append(worker)
            else:
                self._workers.discard(worker)

    def _started(self) -> Worker[Answer]:
        """Return a new worker that is ready; several deaths in a row, or an error of ``load``, end the pool.

        No lock is held while its process starts.
        """
        while True:
            with self._lock:
                if self._closed or self._refusal:
                    raise StartError(str(self._refusal or "the pool is closed")) from self._refusal
            worker = None
            try:
                worker = Worker(self._load)
                with self._lock:
                    self._workers.add(worker)
                    closed = self._closed
                if closed:  # too late for ``close`` to end it
                    worker.kill()
                worker.loaded(_LOADING_SECONDS)
            except Exception as error:
                if worker is not None:
                    worker.ended()
                with self._lock:
                    self._workers.discard(worker)
                    self._failed += 1
                    if not isinstance(error, DeathError) or self._failed >= _MOST_FAILED:
                        self._refusal = self._refusal or error
            else:
                self._failed = 0
                return worker
