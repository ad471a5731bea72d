"""One open bundle, ready to answer: pictures are decoded, batched and encoded in bounded pools."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.artefact.bundle import default_bundle, open_bundle
from sar_infer.artefact.manifest import FileEntry
from sar_infer.classifier import Classifier
from sar_infer.encoders.waiting import TRIAL_SECONDS
from sar_infer.errors import ImageError
from sar_infer.images.prefetch import decode_image
from sar_infer.images.price import price
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.available import decode_memory
from sar_infer.server.model.batcher import Batcher, Finish, Timed
from sar_infer.server.model.memory import DecodeMemory, Share
from sar_infer.server.model.names import Names
from sar_infer.server.model.sizing import Sizes, measured, workers_and_threads
from sar_infer.server.settings import Limits, Settings

T = TypeVar("T")
Picture = bytes | npt.NDArray[np.uint8] | Floats | ImageError
"""Encoded bytes; colours (H, W, 3); the encoder's own input (3, size, size), float32; or why there is none of them."""


@dataclass(frozen=True)
class _Encoded:
    """The bytes of an image that has the memory to be decoded."""

    data: bytes
    share: Share


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one picture: a value, or the error that concerns it alone; seconds by phase."""

    value: T | None
    error: ImageError | None
    seconds: Mapping[str, float]


class Engine:
    """Answers for one bundle, from one event loop.

    Args:
        classifier: Its sessions must be open, names included.
        sizes: Of pools and batches.
        limits: What a picture may be.
        metrics: Where phases are timed.
        memory: Each image takes its share of it while it is decoded.

    Attributes:
        names: Makes the class sets that pictures are ranked against.
    """

    def __init__(
        self, classifier: Classifier, sizes: Sizes, limits: Limits, metrics: Metrics, memory: DecodeMemory
    ) -> None:
        self.classifier = classifier
        self.bundle = classifier.bundle
        self.provider = classifier.start(names=True)
        self.sizes = sizes
        self.memory = memory
        self.names = Names(classifier, limits.classes, metrics)
        self._limits = limits
        self._metrics = metrics
        self._batcher = Batcher(self._decode, classifier.encode, sizes.workers, sizes.max_batch, metrics)
        self._decoders = ThreadPoolExecutor(sizes.decoders, "decode") if sizes.decoders else None

    @classmethod
    def open(cls, settings: Settings, metrics: Metrics, before: Engine | None = None) -> Engine:
        """Open the bundle that the settings name, check what it computes, and warm it.

        Args:
            settings: What to open, and how.
            metrics: Where phases are timed.
            before: The engine that it will replace; its memory for images is taken over, and with the same encoder
                its sizes.

        Raises:
            BundleError: missing, damaged, or it computes otherwise than at export.
            DeviceError: the device cannot be had.
            InputError: the bundle has nothing in the precision of the settings.
        """
        path = default_bundle() if settings.bundle is None else Path(settings.bundle)
        _, threads = workers_and_threads(settings)
        classifier = Classifier(
            open_bundle(path.resolve()),
            device=settings.device,
            threads=threads,
            spin=False,
            precision=settings.precision,
        )
        provider = classifier.start(names=True, self_test=True)
        if before is not None and _image_file(before.classifier) == _image_file(classifier):
            sizes = before.sizes
        else:
            encode = functools.partial(classifier.encode, seconds=TRIAL_SECONDS)
            sizes = measured(settings, provider, encode, classifier.self_test.pixels)
        if before is None:
            memory = DecodeMemory(decode_memory(settings), settings.limits.seconds / 2, metrics)
        else:
            memory = before.memory
        return cls(classifier, sizes, settings.limits, metrics, memory)

    def close(self) -> None:
        """Give the threads back; requests that still run must have ended."""
        self._batcher.close()
        self.names.close()
        if self._decoders is not None:
            self._decoders.shutdown(wait=False)

    async def each(self, pictures: Sequence[Picture], finish: Finish[T]) -> list[Outcome[T]]:
        """What ``finish`` makes of the unit row (1, D) of each picture, in order; a bad picture fails alone."""
        if len(pictures) == 1:
            return [await self._one(pictures[0], finish)]
        ended = await asyncio.gather(*(self._one(picture, finish) for picture in pictures), return_exceptions=True)
        outcomes = []
        for outcome in ended:  # when all have ended, so that none runs on after the answer
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def self_test(self) -> float:
        """What ``SelfTest.cosine`` says of the self-test image as it is encoded now."""
        test = self.classifier.self_test
        timed = await self._batcher.run(test.image, lambda row: test.cosine(row[0]), first=True)
        return timed.value

    @property
    def least_cosine(self) -> float:
        """Below which ``self_test`` says that something is broken."""
        return self.classifier.self_test.least

    async def _one(self, picture: Picture, finish: Finish[T]) -> Outcome[T]:
        if isinstance(picture, ImageError):
            return Outcome(None, picture, {})
        try:
            if not isinstance(picture, bytes):
                return self._answered(await self._batcher.run(picture, finish))
            start = time.perf_counter()
            async with self.memory.share(*price(picture, self._limits.formats, self._limits.pixels)) as share:
                waited = time.perf_counter() - start
                return await self._encoded(_Encoded(picture, share), finish, waited)
        except ImageError as error:
            return Outcome(None, error, {})

    async def _encoded(self, picture: _Encoded, finish: Finish[T], waited: float) -> Outcome[T]:
        if self._decoders is None:
            return self._answered(await self._batcher.run(picture, finish), waited)
        start = time.perf_counter()
        pixels = await asyncio.get_running_loop().run_in_executor(self._decoders, self._decode, picture)
        ahead = time.perf_counter() - start
        return self._answered(await self._batcher.run(pixels, finish), waited, ahead)

    def _answered(self, timed: Timed[T], waited: float = 0.0, ahead: float = 0.0) -> Outcome[T]:
        seconds = {
            "decode": ahead + timed.decode,
            "queue": waited + timed.queue,
            "infer": timed.infer,
            "score": timed.score,
        }
        for phase, value in seconds.items():
            self._metrics.phases.labels(phase).observe(value)
        self._metrics.images.inc()
        return Outcome(timed.value, None, seconds)

    def _decode(self, picture: _Encoded | npt.NDArray[np.uint8] | Floats) -> Floats:
        if isinstance(picture, _Encoded):
            with picture.share.used():
                return self._prepared(picture.data)
        if picture.dtype == np.float32:
            return picture.astype(np.float32, copy=False)
        return self._prepared(picture)

    def _prepared(self, picture: bytes | npt.NDArray[np.generic]) -> Floats:
        spec = self.bundle.manifest.preprocess
        try:
            return decode_image(picture, spec, self._limits.formats, self._limits.pixels)  # type: ignore[arg-type]
        except MemoryError:
            raise ImageError("needs more memory than there is; scale it down first", "size") from None


def _image_file(classifier: Classifier) -> FileEntry:
    return classifier.bundle.manifest.files[classifier.choice.image]


def milliseconds(outcomes: Sequence[Outcome[T]]) -> dict[str, float]:
    """Milliseconds by phase, the longest of all pictures: they go through side by side."""
    phases = ("decode", "queue", "infer", "score")
    return {p: round(max((o.seconds.get(p, 0.0) for o in outcomes), default=math.nan) * 1000, 3) for p in phases}
