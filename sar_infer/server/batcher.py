"""Batching that never makes a lone request wait: what queued while all workers were busy runs together.

A picture that arrives while a worker is idle runs at once, alone. Order is first come, first served; whoever gave up
meanwhile is dropped; each caller gets its own result, and one that fails takes no other with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer.server.metrics import Metrics

T = TypeVar("T")
Floats = npt.NDArray[np.float32]
Finish = Callable[[Floats], T]


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A result, and the seconds that it waited, ran and was finished."""

    value: T
    queue: float
    infer: float
    score: float


@dataclass(frozen=True, eq=False)
class _Item(Generic[T]):
    pixels: Floats
    finish: Finish[T]
    future: asyncio.Future[Timed[T]]
    since: float


class Batcher:
    """Runs pictures through an encoder from one event loop.

    Args:
        encode: Unit rows (N, D) for N pictures, called in a worker's thread.
        workers: Batches that run at once.
        max_batch: Pictures of a batch at most.
        metrics: Where batch sizes are counted.
    """

    def __init__(
        self, encode: Callable[[Sequence[Floats]], Floats], workers: int, max_batch: int, metrics: Metrics
    ) -> None:
        self._encode = encode
        self._workers = workers
        self._max_batch = max_batch
        self._metrics = metrics
        self._waiting: deque[_Item[object]] = deque()
        self._busy = 0
        self._pool = ThreadPoolExecutor(workers, "infer")

    async def run(self, pixels: Floats, finish: Finish[T]) -> Timed[T]:
        """What ``finish`` makes of a picture's row (1, D), in the worker's thread.

        A caller that is cancelled while its picture waits takes it out of the queue.
        """
        future: asyncio.Future[Timed[T]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Item(pixels, finish, future, time.perf_counter()))  # type: ignore[arg-type]
        self._dispatch()
        return await future

    def close(self) -> None:
        """Let the running batches end; nothing may be waiting."""
        self._pool.shutdown(wait=False)

    def _dispatch(self) -> None:
        """Give waiting pictures to idle workers."""
        while self._busy < self._workers and (batch := self._take()):
            self._busy += 1
            self._metrics.batches.observe(len(batch))
            running = asyncio.get_running_loop().run_in_executor(self._pool, self._run, batch)
            running.add_done_callback(lambda done, batch=batch: self._deliver(batch, done))  # type: ignore[misc]

    def _take(self) -> list[_Item[object]]:
        batch: list[_Item[object]] = []
        while self._waiting and len(batch) < self._max_batch:
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
        return batch

    def _run(self, batch: Sequence[_Item[object]]) -> list[Timed[object] | Exception]:
        """In a worker's thread: a result or an error for each picture."""
        start = time.perf_counter()
        try:
            rows = self._encode([item.pixels for item in batch])
            if len(rows) != len(batch):
                raise RuntimeError(f"{len(batch)} pictures gave {len(rows)} rows")
        except Exception as error:  # what onnxruntime raises shares no base class
            if len(batch) == 1:
                return [error]
            half = len(batch) // 2  # out of memory, perhaps: smaller batches may pass, and the culprit fails alone
            return [*self._run(batch[:half]), *self._run(batch[half:])]
        ran = time.perf_counter()
        return [_finished(item, rows[i : i + 1], start, ran) for i, item in enumerate(batch)]

    def _deliver(self, batch: Sequence[_Item[object]], done: asyncio.Future[list[Timed[object] | Exception]]) -> None:
        self._busy -= 1
        for item, result in zip(batch, done.result(), strict=True):
            if item.future.done():
                continue
            if isinstance(result, Exception):
                item.future.set_exception(result)
            else:
                item.future.set_result(result)
        self._dispatch()


def _finished(item: _Item[T], row: Floats, start: float, ran: float) -> Timed[T] | Exception:
    before = time.perf_counter()
    try:
        value = item.finish(row)
    except Exception as error:  # belongs to this caller alone
        return error
    return Timed(value, start - item.since, ran - start, time.perf_counter() - before)
