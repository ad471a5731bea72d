"""Batching without delay: images that queued while all lanes were busy run together.

An image that arrives while a lane is idle runs at once, alone. Images are served first come, first served; those whose
request was cancelled are dropped. Each caller gets its own result, and an image that fails does not affect the others.

A batch may run in another process, which may die of it. Then each of its images runs again, alone, so that only the one
that is to blame fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sar_infer.processes.signals import ended_by_deadline
from sar_infer.processes.worker import DeathError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.process import Result, Task

Compute = Callable[[Sequence[Task], bool], Awaitable[list[Result]]]
"""Is given a batch, and whether nothing else runs."""


@dataclass(eq=False)
class _Item:
    task: Task
    future: asyncio.Future[Result]
    since: float
    alone: bool = False
    """Set once a process has died with it: it runs once more, in no batch with others."""


class Batcher:
    """Runs images through an encoder, on one event loop.

    Args:
        compute: Returns the results of a batch.
        lanes: Batches that run at once.
        max_batch: Images of a batch at most.
        metrics: Counts batch sizes.
        shared: Images of a batch at most while as many wait for each of the lanes; 0: ``max_batch`` always holds.
    """

    def __init__(self, compute: Compute, lanes: int, max_batch: int, metrics: Metrics, shared: int = 0) -> None:
        self._compute = compute
        self._lanes = lanes
        self._max_batch = max_batch
        self._metrics = metrics
        self._shared = shared
        self._waiting: deque[_Item] = deque()
        self._busy: set[asyncio.Task[None]] = set()

    async def run(self, task: Task, first: bool = False) -> Result:
        """Return the result of an image.

        If the caller is cancelled while the image waits, it leaves the queue.

        Args:
            task: The image.
            first: It goes to the head of the queue.

        Raises:
            DeathError: the process that computed died, and of this image, as far as can be told.
        """
        item = _Item(task, asyncio.get_running_loop().create_future(), time.perf_counter())
        (self._waiting.appendleft if first else self._waiting.append)(item)
        self._open_lanes()
        try:
            return await item.future
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):
                self._waiting.remove(item)
            raise

    def _open_lanes(self) -> None:
        while self._waiting and len(self._busy) < self._lanes:
            self._busy.add(asyncio.get_running_loop().create_task(self._work(self._next())))

    async def _work(self, batch: Sequence[_Item]) -> None:
        """Run one batch after another while any waits."""
        while batch:
            self._metrics.batches.observe(len(batch))
            start = time.perf_counter()
            try:
                results: Sequence[Result | Exception | None] = await self._compute(
                    [item.task for item in batch], len(batch) == len(self._busy) == 1
                )
            except DeathError as error:
                results = self._again(batch, error)
            except Exception as error:  # whatever it is, callers wait for an answer
                results = [error] * len(batch)
            for item, result in zip(batch, results, strict=True):
                if result is None or item.future.done():  # it runs again, or its caller was cancelled
                    continue
                if isinstance(result, Exception):
                    item.future.set_exception(result)
                else:
                    item.future.set_result(result._replace(queue=start - item.since + result.queue))
            batch = self._next()
            self._open_lanes()  # for images that run again, each in another worker
        self._busy.remove(asyncio.current_task())  # type: ignore[arg-type]  # at once, so that no image waits for it

    def _next(self) -> list[_Item]:
        batch: list[_Item] = []
        most = max(self._max_batch, min(self._shared, len(self._waiting) // self._lanes))
        while self._waiting and len(batch) < most and not (batch and (batch[0].alone or self._waiting[0].alone)):
            batch.append(self._waiting.popleft())
        return batch

    def _again(self, batch: Sequence[_Item], error: DeathError) -> list[Exception | None]:
        """Put images back whose worker died, to the head of the queue; one that has had its turn gets the error.

        One that alone took too long to decode would do so again.
        """
        late = ended_by_deadline(error.exit_code) and len(batch) == 1
        results: list[Exception | None] = []
        for item in reversed(batch):
            over = late or item.alone or item.future.done()
            results.insert(0, error if over else None)
            item.alone = True
            if not over:
                self._waiting.appendleft(item)
        return results
