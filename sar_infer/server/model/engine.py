"""One open bundle, ready to answer: images are decoded, batched and encoded in bounded pools."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank import PhotoSet
from sar_infer.bank.photos import DIGEST_BYTES
from sar_infer.classifier import Classifier
from sar_infer.encoders.sessions import usable_cores
from sar_infer.errors import ImageError
from sar_infer.images.load import TOO_LITTLE_MEMORY
from sar_infer.images.prefetch import decode_image, decode_photo
from sar_infer.images.price import price
from sar_infer.processes.worker import DeathError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.batcher import Batcher, Finish, Timed
from sar_infer.server.model.encoding import Encoding
from sar_infer.server.model.memory import DecodeMemory, Encoded, Note, Pixels
from sar_infer.server.model.names import Names
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.model.workers import HANDED, Workers, described
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.settings import Limits

_PHASES = ("decode", "queue", "infer", "score")
_LIGHT = 64 * 2**20
"""Bytes: a JPEG of 7 megapixels."""
T = TypeVar("T")
ImageInput = bytes | Pixels | ImageError
"""Encoded bytes; pixels (H, W, 3); the encoder's own input (3, size, size), float32; or why there is no image."""


@dataclass(frozen=True)
class EmbeddedPhotos:
    """Photos of a class as a bank keeps them, and the label in the request of each, by its digest."""

    photo_set: PhotoSet
    labels: Mapping[bytes, str]


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The result of one image: a value, or the error that concerns it alone; seconds by phase."""

    value: T | None
    error: ImageError | None
    seconds: Mapping[str, float]


class Engine:
    """Answers for one bundle, from one event loop.

    Args:
        classifier: Its sessions must have been opened, names included.
        sizes: Sizes of pools and batches.
        limits: Formats and sizes of images that are accepted.
        metrics: Times the phases.
        memory: Each image takes its share of it while it is decoded.
        workers: Processes that decode and encode, started already; None does both in threads of this process.

    Attributes:
        names: Makes the class sets that images are ranked against.
    """

    def __init__(
        self,
        classifier: Classifier,
        sizes: Sizes,
        limits: Limits,
        metrics: Metrics,
        memory: DecodeMemory,
        workers: Workers | None = None,
    ) -> None:
        self.classifier = classifier
        self.bundle = classifier.bundle
        self.workers = workers
        self.provider = classifier.start(names=True) if workers is None else workers.provider
        self.sizes = sizes
        self.memory = memory
        self.names = Names(classifier, limits.classes, metrics)
        self._limits = limits
        self._metrics = metrics
        self._phases = {phase: metrics.phases.labels(phase) for phase in _PHASES}
        self._decoders: ThreadPoolExecutor | None = None
        compute, shared = self._encoding() if workers is None else (workers.compute, HANDED)
        self._batcher: Batcher[Encoded | Pixels] = Batcher(
            compute, sizes.workers, sizes.max_batch, metrics, shared, _light
        )

    def close(self) -> None:
        """Stop the threads, and the processes if there are any; all requests must have ended."""
        self._batcher.close()
        self.names.close()
        if self._decoders is not None:
            self._decoders.shutdown(wait=False)
        if self.workers is not None:
            self.workers.close()

    def tend(self) -> None:
        """Replace processes that need it; to be called now and then."""
        if self.workers is not None:
            self.workers.tend()

    async def each(
        self, images: Sequence[ImageInput], finish: Finish[T], notes: Sequence[Note] = ()
    ) -> list[Outcome[T]]:
        """Return what ``finish`` makes of the unit row (1, D) of each image, in order; a bad image fails alone.

        Args:
            images: The images.
            finish: Is called in another thread.
            notes: For encoded images: is told the digest of each.
        """
        if len(images) == 1:
            return [await self._one(images[0], finish, *notes)]
        told: Sequence[Note | None] = notes or [None] * len(images)
        calls = (self._one(image, finish, note) for image, note in zip(images, told, strict=True))
        ended = await asyncio.gather(*calls, return_exceptions=True)
        outcomes = []
        for outcome in ended:  # when all have ended, so that none runs on after the answer
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def photos(self, images: Sequence[ImageInput]) -> EmbeddedPhotos:
        """Return the photos of a class from encoded images; one that comes twice counts once.

        Raises:
            Problem: an image is bad; the first is named.
        """
        digests, labels = [b""] * len(images), [f"image[{number}]" for number in range(len(images))]
        notes = [functools.partial(digests.__setitem__, number) for number in range(len(images))]
        rows = await self.all_of(images, lambda row: row[0].copy(), labels, notes)
        packed = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)
        return EmbeddedPhotos(
            PhotoSet.of(packed, np.stack(rows)), dict(zip(reversed(digests), reversed(labels), strict=True))
        )

    async def all_of(
        self, images: Sequence[ImageInput], finish: Finish[T], labels: Sequence[str], notes: Sequence[Note] = ()
    ) -> list[T]:
        """Do as ``each`` for a protocol without an error for a single image: a bad one fails the whole call.

        Args:
            images: As in ``each``.
            finish: As in ``each``; returns something else than None.
            labels: Names each image to the client.
            notes: As in ``each``.

        Raises:
            Problem: an image is bad; the first is named.
        """
        for image, label in zip(images, labels, strict=True):
            if isinstance(image, ImageError):
                raise _bad_image(image, label)
        values = []
        for outcome, label in zip(await self.each(images, finish, notes), labels, strict=True):
            if outcome.error is not None:
                raise _bad_image(outcome.error, label)
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

    async def _one(self, image: ImageInput, finish: Finish[T], note: Note | None = None) -> Outcome[T]:
        if isinstance(image, ImageError):
            return Outcome(None, image, {})
        try:
            if not isinstance(image, bytes):
                return self._answered(await self._batcher.run(image, finish))
            start = time.perf_counter()
            async with self.memory.share(*price(image, self._limits.formats, self._limits.pixels)) as share:
                waited = time.perf_counter() - start
                return self._answered(await self._batcher.run(Encoded(image, share, note), finish), waited)
        except ImageError as error:
            return Outcome(None, error, {})
        except DeathError as error:
            return Outcome(None, ImageError(described(error, self._limits.image_seconds)), {})

    def _encoding(self) -> tuple[Encoding[Encoded | Pixels], int]:
        """Return what decodes and encodes in this process, and that no batch holds more than it encodes together."""
        batch = self.sizes.max_batch
        if batch > 1:
            self._decoders = ThreadPoolExecutor(min(usable_cores(), batch), "decoder")
        return Encoding(self._decode, self.classifier.encode, batch, pool=self._decoders), 0

    def _answered(self, timed: Timed[T], waited: float = 0.0) -> Outcome[T]:
        seconds = dict(zip(_PHASES, (timed.decode, waited + timed.queue, timed.infer, timed.score), strict=True))
        for phase, value in seconds.items():
            self._phases[phase].observe(value)
        self._metrics.images.inc()
        return Outcome(timed.value, None, seconds)

    def _decode(self, image: Encoded | Pixels) -> Floats:
        if isinstance(image, Encoded):
            with image.share.used():
                return self._prepared(image.data, image.note)
        if image.dtype == np.float32:
            return image.astype(np.float32, copy=False)
        return self._prepared(image)

    def _prepared(self, image: bytes | npt.NDArray[np.generic], note: Note | None = None) -> Floats:
        spec = self.bundle.manifest.preprocess
        try:
            if note is not None:
                pixels, digest = decode_photo(image, spec, self._limits.formats, self._limits.pixels)  # type: ignore[arg-type]
                note(digest)
                return pixels
            return decode_image(image, spec, self._limits.formats, self._limits.pixels)  # type: ignore[arg-type]
        except MemoryError:
            raise ImageError(TOO_LITTLE_MEMORY, "size") from None


def milliseconds(outcomes: Sequence[Outcome[T]]) -> dict[str, float]:
    """Return the milliseconds of each phase, the longest of all images: they run side by side."""
    seconds = [outcome.seconds for outcome in outcomes]
    return {p: round(1000 * max([each.get(p, 0.0) for each in seconds], default=math.nan), 3) for p in _PHASES}


def _light(image: Encoded | Pixels) -> bool:
    """Return whether an image is decoded quickly, by the memory that this may take."""
    return not isinstance(image, Encoded) or image.share.amount <= _LIGHT


def _bad_image(error: ImageError, label: str) -> Problem:
    return Problem(IMAGE_CODES[error.kind], f"{label}: {error}")
