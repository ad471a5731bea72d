"""One open bundle, ready to answer: images are decoded, batched and encoded in bounded pools."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import PhotoSet
from sar_infer.classifier import Classifier
from sar_infer.errors import ImageError
from sar_infer.processes.worker import DeathError, TimeLimitError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.batcher import Batcher
from sar_infer.server.model.names import Names
from sar_infer.server.model.process import Result, Task, compute, decode
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.model.workers import Workers
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.settings import Limits

_PHASES = ("decode", "queue", "infer", "score")
HANDED = 8
"""Images handed to a worker at once at most: one by one they take 3 to 12 % more CPU (decision 10)."""
_QUICK = 2_000
"""Classes that a row is ranked against on the event loop at most; that takes half a millisecond."""
_DECISIONS = 4
"""Decisions that are kept; requests that share one are ranked together (decision 10)."""
T = TypeVar("T")
Finish = Callable[[Floats], Iterable[T]]
"""Returns a value for each of some unit rows (N, D)."""
ImageInput = bytes | ImageError
"""Encoded bytes; or why there is no image."""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The result of one image: a value, or the error that concerns it alone; seconds by phase; its digest if wanted."""

    value: T | None
    error: ImageError | None
    seconds: Mapping[str, float]
    digest: bytes = b""


class Engine:
    """Answers for one bundle, from one event loop.

    Args:
        classifier: Its sessions must have been opened, names included.
        sizes: Sizes of pools and batches.
        limits: Formats and sizes of images that are accepted.
        metrics: Times the phases.
        workers: Processes that decode and encode, started already; None does both in threads of this process.

    Attributes:
        names: Makes the class sets that images are ranked against.
        decide: As of the classifier; calls that ask for the same get the same object.
    """

    def __init__(
        self,
        classifier: Classifier,
        sizes: Sizes,
        limits: Limits,
        metrics: Metrics,
        workers: Workers | None = None,
    ) -> None:
        self.classifier = classifier
        self.bundle = classifier.bundle
        self.workers = workers
        self.provider = classifier.start(names=True) if workers is None else workers.provider
        self.sizes = sizes
        self.names = Names(classifier, limits.classes, metrics)
        self._limits = limits
        self._metrics = metrics
        self.decide = functools.lru_cache(_DECISIONS)(classifier.decide)
        self._arrived: dict[Finish[Any], list[tuple[Floats, asyncio.Future[Any]]]] = {}
        self._phases = {phase: metrics.phases.labels(phase) for phase in _PHASES}
        self._rankers = ThreadPoolExecutor(sizes.workers, "ranking")
        self._threads = [self._rankers]
        compute = self._in_threads() if workers is None else workers.compute
        self._batcher = Batcher(compute, sizes.workers, sizes.max_batch, metrics, HANDED)

    def close(self) -> None:
        """Stop the threads, and the processes if there are any; all requests must have ended."""
        self.names.close()
        for pool in self._threads:
            pool.shutdown(wait=False)
        if self.workers is not None:
            self.workers.close()

    async def each(
        self, images: Sequence[ImageInput], finish: Finish[T], classes: int = 0, digests: bool = False
    ) -> list[Outcome[T]]:
        """Return what ``finish`` makes of the unit row of each image, in order; a bad image fails alone.

        Args:
            images: The images.
            finish: Called on the event loop, or in a thread if that would hold it up; with all rows that have arrived
                for it, of other calls too.
            classes: How many classes ``finish`` ranks.
            digests: Return the digests of the images' pixels too.
        """
        if len(images) == 1:
            return [await self._one(images[0], finish, classes, digests)]
        calls = (self._one(image, finish, classes, digests) for image in images)
        ended = await asyncio.gather(*calls, return_exceptions=True)
        outcomes = []
        for outcome in ended:  # when all have ended, so that none runs on after the answer
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def photos(self, images: Sequence[ImageInput]) -> tuple[PhotoSet, dict[bytes, str]]:
        """Return the photos of a class from encoded images, and the label of each in the request by its digest.

        One that comes twice counts once.

        Raises:
            Problem: an image is bad; the first is named.
        """
        labels = [f"image[{number}]" for number in range(len(images))]
        outcomes = await self.each(images, lambda rows: rows, digests=True)
        rows = np.stack(_values_of(outcomes, labels))
        digests = [outcome.digest for outcome in outcomes]
        return PhotoSet.of(digests, rows), dict(zip(reversed(digests), reversed(labels), strict=True))

    async def all_of(
        self, images: Sequence[ImageInput], finish: Finish[T], labels: Sequence[str], classes: int = 0
    ) -> list[T]:
        """Do as ``each`` for a protocol without an error for a single image: a bad one fails the whole call.

        Args:
            images: As in ``each``.
            finish: As in ``each``.
            labels: Names each image to the client.
            classes: As in ``each``.

        Raises:
            Problem: an image is bad; the first is named.
        """
        return _values_of(await self.each(images, finish, classes), labels)

    async def self_test(self) -> float:
        """Run the self-test image through the encoder, ahead of the queue, and return ``SelfTest.cosine``."""
        test = self.classifier.self_test
        result = await self._batcher.run(Task(test.image), first=True)
        if isinstance(result.row, Exception):
            raise result.row
        return test.cosine(result.row[0])

    async def _one(self, image: ImageInput, finish: Finish[T], classes: int, digest: bool) -> Outcome[T]:
        if isinstance(image, ImageError):
            return Outcome(None, image, {})
        try:
            result = await self._batcher.run(Task(image, digest))
            if isinstance(result.row, Exception):
                raise result.row
        except ImageError as error:
            return Outcome(None, error, {})
        except DeathError as error:
            late, seconds = isinstance(error, TimeLimitError), self._limits.image_seconds
            reason = f"it takes more than {seconds:g} s; scale it down first"
            crash = f"decoding it ended a process (exit code {error.exit_code})"
            return Outcome(None, ImageError(reason if late else crash), {})
        arrived = self._arrived.setdefault(finish, [])
        ranked: asyncio.Future[tuple[T, float]] = asyncio.get_running_loop().create_future()
        if not arrived:
            asyncio.get_running_loop().call_soon(self._finish, finish, classes)
        arrived.append((result.row, ranked))
        value, score = await ranked
        spent = dict(zip(_PHASES, (result.decode, result.queue, result.infer, score), strict=True))
        for phase, seconds in spent.items():
            self._phases[phase].observe(seconds)
        self._metrics.images.inc()
        return Outcome(value, None, spent, result.digest)

    def _finish(self, finish: Finish[T], classes: int) -> None:
        """Rank the rows (1, D) that have arrived for a decision in this turn of the loop, all together."""
        arrived = [(row, future) for row, future in self._arrived.pop(finish) if not future.done()]
        if not arrived:  # all callers were cancelled, and the engine may be closed
            return
        rows = np.concatenate([row for row, _ in arrived])

        def resolve(ranked: tuple[list[T | Exception], float]) -> None:
            values, seconds = ranked
            for (_, future), value in zip(arrived, values, strict=True):
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(value, Exception):
                    future.set_exception(value)
                else:
                    future.set_result((value, seconds))

        if classes <= _QUICK:
            resolve(_ranked(finish, rows))
        else:
            work = asyncio.get_running_loop().run_in_executor(self._rankers, _ranked, finish, rows)
            work.add_done_callback(lambda done: resolve(done.result()))

    def _in_threads(self) -> Callable[[Sequence[Task], bool], asyncio.Future[list[Result]]]:
        """Return what computes in threads of this process; more decode if more than one image is encoded at a time."""
        batch, decoders = self.sizes.max_batch, None
        if batch > 1:
            decoders = ThreadPoolExecutor(self.sizes.decoders, "decoder")
            self._threads.append(decoders)
        lanes = ThreadPoolExecutor(self.sizes.workers, "worker")
        self._threads.append(lanes)
        decoded = functools.partial(decode, spec=self.bundle.manifest.preprocess, limits=self._limits)
        computed = functools.partial(
            compute, decode=decoded, encode=self.classifier.encode, most=batch, decoders=decoders
        )
        return lambda tasks, _: asyncio.get_running_loop().run_in_executor(lanes, computed, tasks)


def _ranked(finish: Finish[T], rows: Floats) -> tuple[list[T | Exception], float]:
    """Return the value of each row, or its error, and the seconds that all of them took."""
    start = time.perf_counter()
    try:
        values: list[T | Exception] = [*finish(rows)]
    except Exception as error:
        values = [error] if len(rows) == 1 else [_ranked(finish, row[np.newaxis])[0][0] for row in rows]
    return values, time.perf_counter() - start


def _values_of(outcomes: Sequence[Outcome[T]], labels: Sequence[str]) -> list[T]:
    """Return the values of images; refuse the whole call if an image is bad, and name the first."""
    for outcome, label in zip(outcomes, labels, strict=True):
        if outcome.error is not None:
            raise Problem(IMAGE_CODES[outcome.error.kind], f"{label}: {outcome.error}")
    return [outcome.value for outcome in outcomes]  # type: ignore[misc]


def milliseconds(outcomes: Sequence[Outcome[T]]) -> dict[str, float]:
    """Return the milliseconds of each phase, the longest of all images: they run side by side."""
    seconds = [outcome.seconds for outcome in outcomes]
    return {p: round(1000 * max([each.get(p, 0.0) for each in seconds], default=math.nan), 3) for p in _PHASES}
