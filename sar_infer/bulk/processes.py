"""Processes of this machine that answer batches, in order, even if an image crashes one of them.

A process decodes, encodes and ranks in one thread; batches come back in order, and a bounded number is in flight. If a
process dies, say because an image crashes its decoder, the batches in flight are retried in one separate process, in
halves, until the culprit is found and set aside. A process that takes too long to decode one image is ended
(``signals.deadline``), and the batches in flight are retried one image at a time, since every further try with the
culprit takes as long.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Generic, TypeVar

from sar_infer.bulk.items import Flaw, Item, Piece
from sar_infer.bulk.outputs.rows import Form
from sar_infer.bulk.places import one_line
from sar_infer.bulk.signals import ended_by_deadline, waiting
from sar_infer.bulk.worker import Answers, WorkerOptions, answer, begin, ready
from sar_infer.errors import DeviceError, SarInferError

Value = TypeVar("Value")
Batch = tuple[Item, ...]
_AHEAD = 4
"""Batches in flight for each process."""
_AHEAD_BYTES = 256 * 2**20
"""The most bytes of images in batches in flight."""
_PATIENCE = 5.0
"""Seconds without an answer after which a pool is checked to be alive."""


class Pool:
    """Processes that answer batches.

    Raises:
        SarInferError: none of them can start.
    """

    def __init__(self, options: WorkerOptions, form: Form, workers: int) -> None:
        self._options, self._form, self._workers = options, form, workers
        self._pool = self._opened(workers)
        self._lone: _Processes | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # their answers are no longer needed, and one may hang
            for pool in (self._pool, self._lone):
                if pool is not None:
                    pool.terminate()
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._close_lone()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def in_order(self, work: Iterable[tuple[Piece, Batch]]) -> Iterator[tuple[Piece, Answers]]:
        """Yield the answers of every batch, in order, with few batches in flight; several if one had to be divided."""
        waiting: deque[tuple[Piece, Batch, _Task[Answers]]] = deque()
        for piece, batch in work:
            waiting.append((piece, batch, self._submit(batch)))
            while len(waiting) >= _AHEAD * self._workers or sum(_size(item[1]) for item in waiting) > _AHEAD_BYTES:
                yield from self._first(waiting)
        while waiting:
            yield from self._first(waiting)

    def _first(self, waiting: deque[tuple[Piece, Batch, _Task[Answers]]]) -> Iterator[tuple[Piece, Answers]]:
        piece, batch, task = waiting.popleft()
        try:
            answers = task.result()
        except SarInferError:
            raise
        except Exception as error:  # a process died, or raised something unforeseen
            yield from ((piece, answers) for answers in self._again(batch, error))
        else:
            self._close_lone()
            yield piece, answers

    def _submit(self, batch: Batch) -> _Task[Answers]:
        try:
            return _Task(self._pool, answer, batch)
        except (BrokenProcessPool, OSError):  # OSError if a further process was about to start
            self._pool.shutdown(wait=False)
            self._pool = self._opened(self._workers)
            return _Task(self._pool, answer, batch)

    def _again(self, batch: Batch, error: Exception) -> Iterator[Answers]:
        """Yield the answers of a batch that raised ``error``; inputs that fail again are set aside."""
        size = 1 if isinstance(error, _TimedOut) else len(batch)
        for start in range(0, len(batch), size or 1):
            yield from self._alone(batch[start : start + size])

    def _alone(self, batch: Batch) -> Iterator[Answers]:
        """Yield the answers of a batch from a separate process, in halves if that dies too."""
        try:
            found = [self._in_lone(batch)]
        except SarInferError:
            raise
        except Exception as error:
            half = len(batch) // 2
            if half:
                yield from self._again(batch[:half], error)
                yield from self._again(batch[half:], error)
                return
            found = [self._without(item, error) for item in batch]
        yield from found

    def _without(self, item: Item, error: Exception) -> Answers:
        try:
            return self._in_lone((Item(item.key, self._flaw(error)),))
        except SarInferError:
            raise
        except Exception as again:
            raise DeviceError(f"a worker fails, whatever it is given: {one_line(again)}") from None

    def _flaw(self, error: Exception) -> Flaw:
        if isinstance(error, _TimedOut):
            return Flaw("timeout", f"took more than {self._options.image_timeout:g} s to decode (--image-timeout)")
        died = isinstance(error, BrokenProcessPool)
        return Flaw(
            "crash",
            f"the process that read it {'died: memory, or its decoder' if died else f'failed: {one_line(error)}'}",
        )

    def _in_lone(self, batch: Batch) -> Answers:
        """Answer a batch in a separate process, which is kept as long as it lives and has work."""
        if self._lone is None:
            self._lone = self._opened(1)
        try:
            return _Task(self._lone, answer, batch).result()
        except BrokenProcessPool:
            self._close_lone()
            raise

    def _close_lone(self) -> None:
        if self._lone is not None:
            self._lone.shutdown(wait=False, cancel_futures=True)
            self._lone = None

    def _opened(self, workers: int) -> _Processes:
        """Start all processes at once: Python 3.11 fails if a pool breaks while another process is started for it."""
        pool = _Processes(workers, self._options, self._form)
        try:
            for started in [_Task(pool, ready) for _ in range(workers)]:
                started.result()
        except BrokenProcessPool:
            raise DeviceError(
                "no worker can start: a process died while it opened the bundle; too little memory?"
            ) from None
        except OSError as error:
            raise DeviceError(f"no worker can start: {one_line(error)}; fewer --workers?") from None
        return pool


class _TimedOut(BrokenProcessPool):
    """A pool broke because a process took too long to decode one image."""


class _Processes(ProcessPoolExecutor):
    """A pool that still knows its processes after it has broken."""

    def __init__(self, workers: int, options: WorkerOptions, form: Form) -> None:
        self._context = _Context()
        super().__init__(workers, self._context, begin, (options, form))

    def terminate(self) -> None:
        """End the processes, whatever they are doing."""
        for process in self._context.started:
            process.terminate()

    def timed_out(self) -> bool:
        """Return whether the pool broke because an image took too long."""
        self.shutdown(wait=True)  # until then an exit code may be on its way
        return any(ended_by_deadline(process.exitcode) for process in self._context.started)


class _Context(SpawnContext):
    """Starts processes as daemons: Python 3.11 may lose track of one if its pool breaks, and must still end itself."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *given: Any, **named: Any) -> SpawnProcess:  # type: ignore[override] # noqa: N802 - a class there
        self.started.append(SpawnProcess(*given, **named, daemon=True))
        return self.started[-1]


class _Task(Generic[Value]):
    """A task for a pool. Processes that it starts never receive Ctrl-C, not even while Python starts in them."""

    def __init__(self, pool: _Processes, task: Callable[..., Value], *given: object) -> None:
        self._pool = pool
        with waiting(signal.SIGINT):
            self._future = pool.submit(task, *given)

    def result(self) -> Value:
        """Return the result; check the pool while waiting, since Python 3.11 may lose a task if the pool breaks.

        Raises:
            RuntimeError: the pool has broken (``_TimedOut`` if an image took too long), or is closed.
        """
        try:
            while not wait([self._future], _PATIENCE).done:
                _Task(self._pool, ready)
            return self._future.result()
        except BrokenProcessPool:
            if self._pool.timed_out():
                raise _TimedOut("an image took too long") from None
            raise


def _size(batch: Batch) -> int:
    return sum(item.held for item in batch)
