"""Batching that never makes a lone request wait: what queued while all workers were busy runs together.

A worker does everything for its pictures, decoding, encoding and ranking, in one thread: on a CPU nothing is quicker.
A picture that arrives while a worker is idle runs at once, alone. Order is first come, first served; whoever gave up
meanwhile is dropped; each caller gets its own result, and one that fails takes no other with it.
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

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.server.metrics import Metrics

T = TypeVar("T")
P = TypeVar("P")
Finish = Callable[[Floats], T]


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A result, and the seconds that it waited, was decoded, ran with its batch, and was finished."""

    value: T
    queue: float
    decode: float
    infer: float
    score: float


@dataclass(frozen=True, eq=False)
class _Item(Generic[P, T]):
    picture: P
    finish: Finish[T]
    future: asyncio.Future[Timed[T]]
    since: float


class Batcher(Generic[P]):
    """Runs pictures through an encoder from one event loop.

    Args:
        decode: The encoder's input (3, size, size) for a picture.
        encode: Unit rows (N, D) for N inputs.
        workers: Batches that run at once, each in a thread.
        max_batch: Pictures of a batch at most.
        metrics: Where batch sizes are counted.
    """

    def __init__(
        self,
        decode: Callable[[P], Floats],
        encode: Callable[[Sequence[Floats]], Floats],
        workers: int,
        max_batch: int,
        metrics: Metrics,
    ) -> None:
        self._decode = decode
        self._encode = encode
        self._workers = workers
        self._max_batch = max_batch
        self._metrics = metrics
        self._waiting: deque[_Item[P, object]] = deque()
        self._busy = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, "worker")

    async def run(self, picture: P, finish: Finish[T], first: bool = False) -> Timed[T]:
        """What ``finish`` makes of a picture's row (1, D), in the worker's thread.

        A caller that is cancelled while its picture waits takes it out of the queue. What decoding, encoding or
        finishing raises for this picture is raised here. ``first`` goes before whatever waits.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Timed[T]] = loop.create_future()
        item = _Item(picture, finish, future, time.perf_counter())
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
        """Give the threads back, and what it runs; nothing may be waiting or running."""
        self._pool.shutdown(wait=False)
        del self._decode, self._encode  # an owner that these lead back to is then free at once

    def _work(self, batch: list[_Item[P, object]], loop: asyncio.AbstractEventLoop) -> None:
        """In a worker's thread: one batch after another, as long as any waits, without a way through the event loop."""
        while batch:
            self._metrics.batches.observe(len(batch))
            loop.call_soon_threadsafe(_deliver, batch, self._run(batch))
            with self._lock:
                batch = self._take()
                self._busy -= not batch

    def _take(self) -> list[_Item[P, object]]:
        batch: list[_Item[P, object]] = []
        while self._waiting and len(batch) < self._max_batch:
            batch.append(self._waiting.popleft())
        return batch

    def _run(self, batch: Sequence[_Item[P, object]]) -> list[Timed[object] | Exception]:
        """A result or an error for each picture."""
        start = time.perf_counter()
        decoded = [_timed(self._decode, item.picture) for item in batch]
        inputs = [pixels for pixels, _ in decoded if not isinstance(pixels, Exception)]
        before = time.perf_counter()
        rows = iter(self._rows(inputs))
        infer = time.perf_counter() - before
        results: list[Timed[object] | Exception] = []
        for item, (pixels, decoding) in zip(batch, decoded, strict=True):
            row = pixels if isinstance(pixels, Exception) else next(rows)
            value, scoring = (row, 0.0) if isinstance(row, Exception) else _timed(item.finish, row)
            failed = isinstance(value, Exception)
            results.append(value if failed else Timed(value, start - item.since, decoding, infer, scoring))  # type: ignore[arg-type]
        return results

    def _rows(self, inputs: Sequence[Floats]) -> list[Floats | Exception]:
        """A row (1, D) or an error for each input."""
        if not inputs:
            return []
        try:
            rows = self._encode(inputs)
            if len(rows) != len(inputs):
                raise RuntimeError(f"{len(inputs)} pictures gave {len(rows)} rows")
            if len(inputs) > 1 and not np.isfinite(rows).all():  # INT8 graphs share ranges: one spoils all
                raise ArithmeticError("a row is not finite")
        except Exception as error:  # what onnxruntime raises shares no base class
            if len(inputs) == 1:
                return [error]
            half = len(inputs) // 2  # out of memory, perhaps: smaller batches may pass, and the culprit fails alone
            return [*self._rows(inputs[:half]), *self._rows(inputs[half:])]
        return [rows[i : i + 1] for i in range(len(rows))]


def _deliver(batch: Sequence[_Item[P, object]], results: Sequence[Timed[object] | Exception]) -> None:
    """On the event loop: to each caller who is still there its own."""
    for item, result in zip(batch, results, strict=True):
        if item.future.done():
            continue
        if isinstance(result, Exception):
            item.future.set_exception(result)
        else:
            item.future.set_result(result)


def _timed(function: Callable[[P], T], argument: P) -> tuple[T | Exception, float]:
    """What a function returns or raises, and how long it took; an error is this picture's alone."""
    start = time.perf_counter()
    try:
        value: T | Exception = function(argument)
    except Exception as error:
        value = error
    return value, time.perf_counter() - start
