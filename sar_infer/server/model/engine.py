"""One open bundle, ready to answer: images are decoded, batched and encoded in bounded pools."""

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
from sar_infer.server.model.batcher import Batcher, Finish, Timed
from sar_infer.server.model.memory import DecodeMemory, Share
from sar_infer.server.model.names import Names
from sar_infer.server.model.sizing import Sizes, decode_memory, measured, workers_and_threads
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.settings import Limits, Settings

T = TypeVar("T")
ImageInput = bytes | npt.NDArray[np.uint8] | Floats | ImageError
"""Encoded bytes; pixels (H, W, 3); the encoder's own input (3, size, size), float32; or why there is no image."""


@dataclass(frozen=True)
class _Encoded:
    """The bytes of an image, and the memory to decode it in."""

    data: bytes
    share: Share


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The result of one image: a value, or the error that concerns it alone; seconds by phase."""

    value: T | None
    error: ImageError | None
    seconds: Mapping[str, float]


class Engine:
    """Answers for one bundle, from one event loop.

    Args:
        classifier: Its sessions must be open, names included.
        sizes: Sizes of pools and batches.
        limits: Formats and sizes of images that are accepted.
        metrics: Times the phases.
        memory: Each image takes its share of it while it is decoded.

    Attributes:
        names: Makes the class sets that images are ranked against.
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
            settings: Name the bundle, the device and the precision.
            metrics: Times the phases.
            before: The engine that it will replace. Its memory for images is taken over, and its sizes too if the image
                encoder is the same.

        Raises:
            BundleError: missing, damaged, or it computes something else than at export.
            DeviceError: the device is not available.
            InputError: the bundle has no graphs in the precision of the settings.
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
        """Stop the threads; all requests must have ended."""
        self._batcher.close()
        self.names.close()
        if self._decoders is not None:
            self._decoders.shutdown(wait=False)

    async def each(self, images: Sequence[ImageInput], finish: Finish[T]) -> list[Outcome[T]]:
        """Return what ``finish`` makes of the unit row (1, D) of each image, in order; a bad image fails alone."""
        if len(images) == 1:
            return [await self._one(images[0], finish)]
        ended = await asyncio.gather(*(self._one(image, finish) for image in images), return_exceptions=True)
        outcomes = []
        for outcome in ended:  # when all have ended, so that none runs on after the answer
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def all_of(self, images: Sequence[ImageInput], finish: Finish[T], places: Sequence[str]) -> list[T]:
        """Do as ``each`` for a protocol without an error for a single image: a bad one fails the whole call.

        Args:
            images: As in ``each``.
            finish: As in ``each``; returns something else than None.
            places: Names each image to the client.

        Raises:
            Problem: an image is bad; the first is named.
        """
        for image, place in zip(images, places, strict=True):
            if isinstance(image, ImageError):
                raise _bad_image(image, place)
        values = []
        for outcome, place in zip(await self.each(images, finish), places, strict=True):
            if outcome.error is not None:
                raise _bad_image(outcome.error, place)
            assert outcome.value is not None  # noqa: S101 - there is a value if there is no error
            values.append(outcome.value)
        return values

    async def self_test(self) -> float:
        """Run the self-test image through the encoder, ahead of the queue, and return ``SelfTest.cosine``."""
        test = self.classifier.self_test
        timed = await self._batcher.run(test.image, lambda row: test.cosine(row[0]), first=True)
        return timed.value

    @property
    def least_cosine(self) -> float:
        """Return the least cosine of a ``self_test`` that passes."""
        return self.classifier.self_test.least

    async def _one(self, image: ImageInput, finish: Finish[T]) -> Outcome[T]:
        if isinstance(image, ImageError):
            return Outcome(None, image, {})
        try:
            if not isinstance(image, bytes):
                return self._answered(await self._batcher.run(image, finish))
            start = time.perf_counter()
            async with self.memory.share(*price(image, self._limits.formats, self._limits.pixels)) as share:
                waited = time.perf_counter() - start
                return await self._encoded(_Encoded(image, share), finish, waited)
        except ImageError as error:
            return Outcome(None, error, {})

    async def _encoded(self, image: _Encoded, finish: Finish[T], waited: float) -> Outcome[T]:
        if self._decoders is None:
            return self._answered(await self._batcher.run(image, finish), waited)
        start = time.perf_counter()
        pixels = await asyncio.get_running_loop().run_in_executor(self._decoders, self._decode, image)
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

    def _decode(self, image: _Encoded | npt.NDArray[np.uint8] | Floats) -> Floats:
        if isinstance(image, _Encoded):
            with image.share.used():
                return self._prepared(image.data)
        if image.dtype == np.float32:
            return image.astype(np.float32, copy=False)
        return self._prepared(image)

    def _prepared(self, image: bytes | npt.NDArray[np.generic]) -> Floats:
        spec = self.bundle.manifest.preprocess
        try:
            return decode_image(image, spec, self._limits.formats, self._limits.pixels)  # type: ignore[arg-type]
        except MemoryError:
            raise ImageError("needs more memory than there is; scale it down first", "size") from None


def milliseconds(outcomes: Sequence[Outcome[T]]) -> dict[str, float]:
    """Return the milliseconds of each phase, the longest of all images: they run side by side."""
    phases = ("decode", "queue", "infer", "score")
    return {p: round(max((o.seconds.get(p, 0.0) for o in outcomes), default=math.nan) * 1000, 3) for p in phases}


def _image_file(classifier: Classifier) -> FileEntry:
    return classifier.bundle.manifest.files[classifier.choice.image]


def _bad_image(error: ImageError, place: str) -> Problem:
    return Problem(IMAGE_CODES[error.kind], f"{place}: {error}")
