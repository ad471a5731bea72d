"""One open bundle, ready to answer: pictures are decoded, batched, and ranked against class sets in bounded pools."""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer.artefact import FileEntry
from sar_infer.bank import ClassBank
from sar_infer.bundle import Bundle, default_bundle, open_bundle
from sar_infer.class_set import ClassSet
from sar_infer.classifier import Classifier
from sar_infer.decoding import decode_picture
from sar_infer.errors import BundleError, ImageError
from sar_infer.probe import least_cosine, probe_cosine, probe_picture
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.batcher import Batcher, Finish
from sar_infer.server.model.sizing import Sizes, measured, workers_and_threads
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits, Settings
from sar_infer.tokenizer import encode_name

T = TypeVar("T")
Floats = npt.NDArray[np.float32]
Picture = bytes | npt.NDArray[np.uint8] | Floats | ImageError
"""Encoded bytes; colours (H, W, 3); the encoder's own input (3, size, size), float32; or why there is none of them."""
Phrases = Mapping[str, tuple[str, ...]]
_SetKey = tuple[str, tuple[tuple[str, tuple[str, ...]], ...], bool]
"""Digest of the bank, phrases by name, and whether they are all."""
_SET_ROWS = 32_768
"""Rows of all class sets that are kept, 64 MiB at 512 numbers a row; one set is, however large."""
_PROBE_SEED = 0


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
    """

    def __init__(self, classifier: Classifier, sizes: Sizes, limits: Limits, metrics: Metrics) -> None:
        self.classifier = classifier
        self.bundle = classifier.bundle
        self.provider = classifier.start(names=True)
        self.sizes = sizes
        self._limits = limits
        self._metrics = metrics
        self._batcher = Batcher(self._decode, classifier.encode, sizes.workers, sizes.max_batch, metrics)
        self._decoders = ThreadPoolExecutor(sizes.decoders, "decode") if sizes.decoders else None
        self._namer = ThreadPoolExecutor(1, "names")
        self._names_waiting = 0
        self._sets: OrderedDict[_SetKey, ClassSet] = OrderedDict()
        self._whole: tuple[ClassBank, ClassSet] | None = None
        self._making: dict[_SetKey, asyncio.Future[ClassSet]] = {}

    @classmethod
    def open(cls, settings: Settings, metrics: Metrics, before: Engine | None = None) -> Engine:
        """Open the bundle that the settings name, check what it computes, and warm it.

        Args:
            settings: What to open, and how.
            metrics: Where phases are timed.
            before: The engine that it will replace; with the same encoder its sizes are taken over.

        Raises:
            BundleError: missing, damaged, or it computes otherwise than at export.
            DeviceError: the device cannot be had.
            InputError: the bundle has nothing in the precision of the settings.
        """
        path = default_bundle() if settings.bundle is None else Path(settings.bundle)
        bundle = open_bundle(path.resolve())
        _, threads = workers_and_threads(settings)
        classifier = Classifier(
            bundle, device=settings.device, threads=threads, spin=False, precision=settings.precision
        )
        provider = classifier.start(names=True)
        pixels = decode_picture(_probe_picture(bundle), bundle.manifest.preprocess)
        (row,) = classifier.encode([pixels])
        if not (cosine := _probe_cosine(bundle, row)) >= least_cosine(classifier.choice.variant):
            raise BundleError(
                f"{path}: the probe picture gives another vector than at export (cosine {cosine:.4f}): "
                "the graph or what runs it is broken"
            )
        if before is not None and _image_file(before.classifier) == _image_file(classifier):
            sizes = before.sizes
        else:
            sizes = measured(settings, provider, classifier.encode, pixels)
        return cls(classifier, sizes, settings.limits, metrics)

    def close(self) -> None:
        """Give the threads back; requests that still run must have ended."""
        self._batcher.close()
        for pool in (self._decoders, self._namer):
            if pool is not None:
                pool.shutdown(wait=False)

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

    async def class_set(self, classes: Phrases, only: bool, bank: ClassBank) -> ClassSet:
        """The classes of a call; names are encoded one request after the other, and sets kept for the next call.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: there is no class to choose from.
            Problem: ``overloaded``, where too many names wait already.
        """
        if not classes and not only:
            if self._whole is None or self._whole[0] is not bank:
                self._whole = bank, self.classifier.class_set(bank=bank)
            return self._whole[1]
        key = (bank.content_digest, tuple(classes.items()), only)
        found = self._sets.get(key)
        self._metrics.sets.labels("miss" if found is None else "hit").inc()
        if found is not None:
            self._sets.move_to_end(key)
            return found
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.ensure_future(self._make(key, bank))
            making.add_done_callback(lambda done: (self._making.pop(key), done.cancelled() or done.exception()))
        return await asyncio.shield(making)  # others may wait for the same

    async def embed_names(self, names: Sequence[str]) -> tuple[Floats, int]:
        """Unit rows (N, D) from the name encoder, and how many tokens the names have.

        Raises:
            ClassNameError: a name is empty or too long.
            Problem: ``overloaded``, where too many names wait already.
        """
        return await self._name(len(names), lambda: (self.classifier.embed_names(names), self._tokens(names)))

    async def probe(self) -> float:
        """Cosine between the probe picture's vector as it is now and as it was at export; NaN where nothing is right.

        A bundle without a probe is asked for a finite vector of length 1.
        """
        bundle = self.bundle
        timed = await self._batcher.run(_probe_picture(bundle), lambda row: _probe_cosine(bundle, row[0]), first=True)
        return timed.value

    @property
    def least_cosine(self) -> float:
        """Below which ``probe`` says that something is broken."""
        return least_cosine(self.classifier.choice.variant)

    async def _one(self, picture: Picture, finish: Finish[T]) -> Outcome[T]:
        if isinstance(picture, ImageError):
            return Outcome(None, picture, {})
        ahead = 0.0
        try:
            if self._decoders is not None and isinstance(picture, bytes):
                start = time.perf_counter()
                picture = await self._in(self._decoders, functools.partial(self._decode, picture))
                ahead = time.perf_counter() - start
            timed = await self._batcher.run(picture, finish)
        except ImageError as error:
            return Outcome(None, error, {})
        seconds = {
            "decode": ahead + timed.decode,
            "queue": timed.queue,
            "infer": timed.infer,
            "score": timed.score,
        }
        for phase, value in seconds.items():
            self._metrics.phases.labels(phase).observe(value)
        self._metrics.images.inc()
        return Outcome(timed.value, None, seconds)

    def _decode(self, picture: bytes | npt.NDArray[np.uint8] | Floats) -> Floats:
        if isinstance(picture, np.ndarray) and picture.dtype == np.float32:
            return picture.astype(np.float32, copy=False)
        spec = self.bundle.manifest.preprocess
        try:
            return decode_picture(picture, spec, self._limits.formats, self._limits.pixels)  # type: ignore[arg-type]
        except MemoryError:
            raise ImageError("needs more memory than there is; scale it down first", "size") from None

    def _tokens(self, names: Sequence[str]) -> int:
        tokenizer, spec = self.bundle.tokenizer, self.bundle.manifest.tokenizer
        return sum(len(encode_name(tokenizer, spec, name)) for name in names)

    async def _make(self, key: _SetKey, bank: ClassBank) -> ClassSet:
        _, items, only = key
        count = sum(len(phrases) for _, phrases in items)
        made = await self._name(count, lambda: self.classifier.class_set(dict(items), only, bank))
        self._keep(key, made)
        return made

    def _keep(self, key: _SetKey, classes: ClassSet) -> None:
        """Remember a class set while the bank is the same, in place of those not used for longest."""
        if any(digest != key[0] for digest, _, _ in itertools.islice(self._sets, 1)):
            self._sets.clear()
        self._sets[key] = classes
        while sum(len(kept.names) for kept in self._sets.values()) > _SET_ROWS and len(self._sets) > 1:
            self._sets.popitem(last=False)

    async def _name(self, count: int, work: Callable[[], T]) -> T:
        if self._names_waiting and self._names_waiting + count > 2 * self._limits.classes:
            raise Problem("overloaded", "too many new class names are being encoded; try again", 1)
        self._names_waiting += count
        self._metrics.names.inc(count)
        try:
            return await self._in(self._namer, work)
        finally:
            self._names_waiting -= count

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def _image_file(classifier: Classifier) -> FileEntry:
    return classifier.bundle.manifest.files[classifier.choice.image]


def _probe_picture(bundle: Bundle) -> npt.NDArray[np.uint8]:
    probe = bundle.manifest.probe
    return probe_picture(bundle.manifest.preprocess.size, probe.seed if probe else _PROBE_SEED)


def _probe_cosine(bundle: Bundle, row: Floats) -> float:
    """Of a bundle without a probe, how near the vector's length is to 1."""
    probe = bundle.manifest.probe
    return probe_cosine(probe, row) if probe else 1 - abs(1 - float(np.linalg.norm(row)))


def milliseconds(outcomes: Sequence[Outcome[T]]) -> dict[str, float]:
    """Milliseconds by phase, the longest of all pictures: they go through side by side."""
    phases = ("decode", "queue", "infer", "score")
    return {p: round(max((o.seconds.get(p, 0.0) for o in outcomes), default=math.nan) * 1000, 3) for p in phases}
