"""Images wait in one line; a worker that is idle takes the next ones, and what it returns is ranked.

An image that finds a worker idle runs at once, by itself. Images that arrive while all are busy run together, first
come, first served; those whose request was cancelled are dropped. Images of a batch are ranked together, and one that
fails does not affect the others.

A worker that dies takes its batch with it. Each of these images runs once more, by itself, so that only the faulty one
fails.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.errors import ImageError
from sar_infer.processes.signals import ended_by_deadline
from sar_infer.processes.worker import DeathError, TimeLimitError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.banks import in_thread
from sar_infer.server.model.process import Pixels, Result, Task
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.model.supervisor import PAUSE
from sar_infer.server.model.workers import Compute, Workers
from sar_infer.server.problems import Problem

PHASES = ("decode", "queue", "infer", "score")
HANDED = 8
"""Images handed to a worker at once at most; one by one they take 3 % (8 clients) to 12 % (32) more CPU (ADR 10)."""
_QUICK = 2_000
"""Classes that are ranked on the event loop at most, which takes half a millisecond a row."""
T = TypeVar("T")
ImageInput = bytes | ImageError
"""Encoded bytes; or why there is no image."""
Finish = Callable[[Floats], Iterable[T]]
"""Returns a value for each of some images, from their unit rows (N, D)."""


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

    def fail(self, error: Exception) -> None:
        """End with an error of the image, or with an exception of the call."""
        if self.future.done():  # its caller was cancelled
            return
        if isinstance(error, ImageError):
            self.future.set_result(Outcome(None, error, {}))
        else:
            self.future.set_exception(error)


class Line:
    """The line of images; it runs on one event loop.

    Args:
        workers: Compute images.
        sizes: Sizes of batches.
        image_seconds: The seconds that an image may take, for a message.
        metrics: Counts batches and images.
    """

    def __init__(self, workers: Workers, sizes: Sizes, image_seconds: float, metrics: Metrics) -> None:
        self._workers, self._sizes, self._image_seconds, self._metrics = workers, sizes, image_seconds, metrics
        self._phases = [metrics.phases.labels(phase) for phase in PHASES]
        self._waiting: deque[_Item] = deque()
        self._batches: set[asyncio.Task[None]] = set()
        self._busy = 0
        workers.changed = self._hand_out

    async def each(
        self,
        images: Sequence[ImageInput | Pixels],
        finish: Finish[T],
        classes: int = 0,
        *,
        digests: bool = False,
        first: bool = False,
        several: bool = False,
    ) -> list[Outcome[T]]:
        """Return what ``finish`` makes of the unit rows of each image, in order; a bad image fails by itself.

        Args:
            images: Encoded bytes, pixels, or why there is no image.
            finish: Called on the event loop, or in a thread if that would hold it up; with the rows of one batch,
                perhaps of other calls too. What it raises is raised here.
            classes: How many classes ``finish`` ranks.
            digests: Return the digests of the images' pixels too.
            first: Go to the head of the line.
            several: Each image has the rows of its crops, as `sar_infer.images.preprocess.CROPS` has them, not one.

        Raises:
            Problem: ``unavailable``, while no worker can be had.
        """
        loop, now, items = asyncio.get_running_loop(), time.perf_counter(), list[_Item]()
        outcomes: list[Outcome[T] | asyncio.Future[Outcome[T]]] = []
        for image in images:
            if isinstance(image, ImageError):
                outcomes.append(Outcome(None, image, {}))
                continue
            items.append(item := _Item(Task(image, digests, several), finish, classes, loop.create_future(), now))
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
        """Hand images to idle workers; refuse them while there can be none."""
        while self._waiting:
            if self._waiting[0].future.done():  # its caller was cancelled
                self._waiting.popleft()
            elif (fault := self._workers.fault) is not None:
                self._waiting.popleft().fail(Problem("unavailable", f"{fault}; try again", PAUSE))
            elif (compute := self._workers.take()) is None:
                return
            else:
                self._busy += 1
                working = asyncio.get_running_loop().create_task(self._work(compute, self._next()))
                self._batches.add(working)
                working.add_done_callback(self._batches.discard)

    def _next(self) -> list[_Item]:
        """Take a batch from the line: more than ``max_batch`` images only if as many wait for each of the workers."""
        batch: list[_Item] = []
        most = max(self._sizes.max_batch, min(HANDED, len(self._waiting) // self._sizes.workers))
        while self._waiting and len(batch) < most and not (batch and (batch[0].alone or self._waiting[0].alone)):
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
        return batch

    async def _work(self, compute: Compute, batch: Sequence[_Item]) -> None:
        self._metrics.batches.observe(len(batch))
        start, lone = time.perf_counter(), len(batch) == self._busy == 1
        results = list[Result]()
        try:
            results = await compute([item.task for item in batch], lone)
        except DeathError as error:
            self._again(batch, error)
        except Exception as error:  # whatever it is, callers wait for an answer
            results = [Result(error)] * len(batch)
        self._busy -= 1
        self._hand_out()
        if results:
            await asyncio.sleep(0)  # the worker gets its next batch first
            await self._finish(batch, results, start)

    def _again(self, batch: Sequence[_Item], error: DeathError) -> None:
        """Put images whose worker died back to the head of the line; one that was already decoded by itself fails.

        One that was decoded by itself and took too long would do so again.
        """
        late = ended_by_deadline(error.exit_code) and len(batch) == 1
        for item in reversed(batch):
            if not item.alone and not late:
                item.alone = True
                self._waiting.appendleft(item)
            elif isinstance(error, TimeLimitError):
                item.fail(ImageError(f"it takes more than {self._image_seconds:g} s; scale it down first"))
            elif error.exit_code == -9:  # by a person or for lack of memory: that need not be the image's fault
                item.fail(Problem("unavailable", "its worker was killed twice; try again", 1))
            else:
                item.fail(ImageError(f"decoding it ended a process (exit code {error.exit_code})"))

    async def _finish(self, batch: Sequence[_Item], results: Sequence[Result], start: float) -> None:
        """Rank the rows of a batch, those that share ``finish`` together; many classes in a thread."""
        groups: dict[Finish[Any], list[tuple[_Item, Result]]] = {}
        for item, result in zip(batch, results, strict=True):
            if isinstance(result.row, Exception):
                item.fail(result.row)
            elif not item.future.done():
                groups.setdefault(item.finish, []).append((item, result))
        for finish, group in groups.items():
            rank = functools.partial(_ranked, finish, [result.row for _, result in group])
            values, score = rank() if group[0][0].classes <= _QUICK else await in_thread(rank)
            for (item, result), value in zip(group, values, strict=True):
                if isinstance(value, Exception):
                    item.fail(value)
                elif not item.future.done():
                    spent = (result.decode, start - item.since + result.queue, result.infer, score)
                    for histogram, seconds in zip(self._phases, spent, strict=True):
                        histogram.observe(seconds)
                    self._metrics.images.inc()
                    item.future.set_result(Outcome(value, None, dict(zip(PHASES, spent, strict=True)), result.digest))


def _ranked(finish: Finish[T], rows: Sequence[Any]) -> tuple[list[T | Exception], float]:
    """Return the value of each image, of one row or several, or its error, and the seconds that all of them took."""
    start = time.perf_counter()
    try:
        values: list[T | Exception] = [*finish(np.concatenate(rows))]
    except Exception as error:
        values = [error] if len(rows) == 1 else [_ranked(finish, [of_image])[0][0] for of_image in rows]
    return values, time.perf_counter() - start
