"""Batching without delay: images that queued while all workers were busy run together.

An image that arrives while a worker is idle runs at once, alone. Images are served first come, first served; those
whose request was cancelled are dropped. Each caller gets its own result, and an image that fails does not affect the
others.

A batch may run in another process, which may die of it. Then each of its images runs again, alone, so that only the one
that is to blame fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from sar_infer._arrays import Floats
from sar_infer.processes.signals import ended_by_deadline
from sar_infer.processes.worker import DeathError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.encoding import Compute, timed

T = TypeVar("T")
P = TypeVar("P")
Finish = Callable[[Floats], T]


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A result, and the seconds it spent in the queue, in decoding, in the encoder and in scoring."""

    value: T
    queue: float
    decode: float
    infer: float
    score: float


@dataclass(eq=False)
class _Item(Generic[P, T]):
    image: P
    finish: Finish[T]
    future: asyncio.Future[Timed[T]]
    since: float
    alone: bool = False
    """Set once a worker has died with it: it runs once more, in no batch with others."""


class Batcher(Generic[P]):
    """Runs images through an encoder, called from one event loop.

    Args:
        compute: Returns a row or an error for each image; called in several threads. It is told whether a batch is a
            single image beside which nothing runs.
        workers: Batches that run at once, each in a thread.
        max_batch: Images of a batch at most.
        metrics: Counts batch sizes; None counts nothing.
        shared: Images of a batch at most while as many wait for each of the workers; 0: ``max_batch`` always holds.
        light: Returns whether an image may be among those beyond ``max_batch``, which make the others wait.
    """

    def __init__(
        self,
        compute: Compute[P],
        workers: int,
        max_batch: int,
        metrics: Metrics | None = None,
        shared: int = 0,
        light: Callable[[P], bool] = lambda _: True,
    ) -> None:
        self._compute = compute
        self._workers = workers
        self._max_batch = max_batch
        self._shared = shared
        self._light = light
        self._metrics = metrics
        self._waiting: deque[_Item[P, object]] = deque()
        self._busy = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, "worker")

    async def run(self, image: P, finish: Finish[T], first: bool = False) -> Timed[T]:
        """Return what ``finish`` makes of an image's row (1, D), in the worker's thread.

        An exception from decoding, encoding or finishing this image is raised here. If the caller is cancelled while
        the image waits, it leaves the queue. With ``first`` the image goes to the head of the queue.

        Raises:
            DeathError: the process that computed died, and of this image, as far as can be told.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Timed[T]] = loop.create_future()
        item = _Item(image, finish, future, time.perf_counter())
        with self._lock:
            (self._waiting.appendleft if first else self._waiting.append)(item)  # type: ignore[arg-type]
            batch = self._take() if self._busy < self._workers else []
            self._busy += bool(batch)
        if batch:
            self._pool.submit(self._work, batch, loop)
        try:
            return await future
        except asyncio.CancelledError:
            with self._lock, contextlib.suppress(ValueError):
                self._waiting.remove(item)  # type: ignore[arg-type]
            raise

    def close(self) -> None:
        """Stop the threads and release the encoder; nothing may be waiting or running."""
        self._pool.shutdown(wait=False)
        del self._compute  # it refers back to the owner, which is then freed at once

    def _work(self, batch: list[_Item[P, object]], loop: asyncio.AbstractEventLoop) -> None:
        """Run one batch after another in a worker's thread while any waits, without going through the event loop."""
        while batch:
            if self._metrics is not None:
                self._metrics.batches.observe(len(batch))
            done, results = batch, self._run(batch, alone=len(batch) == self._busy == 1)
            with self._lock:
                batch = self._take()
                self._busy -= not batch
                while None in results and self._waiting and self._busy < self._workers:  # each in another worker
                    self._busy += 1
                    self._pool.submit(self._work, self._take(), loop)
            loop.call_soon_threadsafe(_deliver, done, results)  # once it no longer counts as busy

    def _take(self) -> list[_Item[P, object]]:
        batch: list[_Item[P, object]] = []
        most = max(self._max_batch, min(self._shared, len(self._waiting) // self._workers))
        while self._waiting and len(batch) < most:
            if batch and self._waiting[0].alone:
                break
            if len(batch) >= self._max_batch and not self._light(self._waiting[0].image):
                break
            batch.append(self._waiting.popleft())
            if batch[0].alone:
                break
        return batch

    def _run(self, batch: Sequence[_Item[P, object]], alone: bool) -> list[Timed[object] | Exception | None]:
        """Return a result or an error for each image, None for those that run again."""
        start = time.perf_counter()
        try:
            computed = self._compute([item.image for item in batch], alone)
        except DeathError as error:
            return self._again(batch, error)
        except Exception as error:  # whatever it is, callers wait for an answer
            return [error] * len(batch)
        results: list[Timed[object] | Exception | None] = []
        phases = zip(computed.queue, computed.decode, computed.infer, strict=True)
        for item, row, (queue, decode, infer) in zip(batch, computed.rows, phases, strict=True):
            value, scoring = (row, 0.0) if isinstance(row, Exception) else timed(item.finish, row)
            failed = isinstance(value, Exception)
            results.append(value if failed else Timed(value, start - item.since + queue, decode, infer, scoring))  # type: ignore[arg-type]
        return results

    def _again(self, batch: Sequence[_Item[P, object]], error: DeathError) -> list[Timed[object] | Exception | None]:
        """Put images back whose worker died, to the head of the queue; one that has had its turn gets the error.

        One that alone took too long to decode would do so again.
        """
        late = ended_by_deadline(error.exit_code) and len(batch) == 1
        with self._lock:
            for item in reversed(batch):
                if not (late or item.alone or item.future.done()):
                    self._waiting.appendleft(item)
            results: list[Timed[object] | Exception | None] = [error if late or i.alone else None for i in batch]
            for item in batch:
                item.alone = True
        return results


def _deliver(batch: Sequence[_Item[P, object]], results: Sequence[Timed[object] | Exception | None]) -> None:
    """Give each caller that still waits its result, on the event loop."""
    for item, result in zip(batch, results, strict=True):
        if result is None or item.future.done():
            continue
        if isinstance(result, Exception):
            item.future.set_exception(result)
        else:
            item.future.set_result(result)
