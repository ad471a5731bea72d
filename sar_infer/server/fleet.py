"""The banks of a folder, by name: opened when they are asked for; the least recently used ones leave the memory.

Of an open bank only what ranks images stays: weights, names, thresholds. A request makes one ``stat`` of the bank that
it asks for, so what another process writes, adds or removes is in the next answer; nothing watches the folder.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank
from sar_infer.bundle.bank_file import SUFFIX, Stamp, stamp_of
from sar_infer.class_model.model import ClassModel
from sar_infer.classifier import Classifier
from sar_infer.classify.class_set import ClassSet
from sar_infer.encoders.waiting import in_background
from sar_infer.errors import SarInferError
from sar_infer.server.bank import BankStore, Edit
from sar_infer.server.metrics import Metrics
from sar_infer.server.problems import Problem

NAME = r"^[A-Za-z0-9._-]{1,64}$"
"""Pattern of a bank's name: that of its file without the suffix, never a path."""
_LOOK_SECONDS = 2.0
"""Seconds that a request waits for a look at a file; then an open bank ranks as of its last look."""
_RETRY_SECONDS = 10.0
"""Time between two attempts to open a file that cannot be used."""
_NAME_BYTES = 100
"""Bytes of a class name in memory, with its places in tuples."""
_log = logging.getLogger("sar_infer.server")


class OpenBank(NamedTuple):
    """A bank in memory: what ranks images, and the digest of its content; or why its file cannot be used.

    Attributes:
        stamp: Of its file when it was opened.
        classes: None if the file cannot be used.
        digest: Of its content, or the reason.
        size: Bytes in memory.
        at: When it was opened, of ``time.monotonic``.
    """

    stamp: Stamp
    classes: ClassSet | None
    digest: str
    size: int
    at: float


class Fleet:
    """Banks by name; requests use it on one event loop, and ``names`` and ``bank`` in threads.

    Args:
        folder: Each ``NAME.safetensors`` in it is a bank.
        classifier: Of the bundle that they belong to.
        most: Bytes of open banks; the one that was asked for last stays in any case.
        metrics: Counts them.
    """

    def __init__(self, folder: Path, classifier: Classifier, most: int, metrics: Metrics) -> None:
        self._folder, self._classifier, self._most, self._metrics = folder, classifier, most, metrics
        self._open: OrderedDict[str, OpenBank] = OrderedDict()
        self._opening: dict[tuple[str, Stamp], asyncio.Future[OpenBank]] = {}
        self._size = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        size = classifier.bundle.manifest.embed_dim
        self._plain = ClassModel.unfitted(size, classifier.bundle.manifest.logit_scale)

    def names(self) -> list[str]:
        """Return the names of all banks, sorted."""
        with os.scandir(self._folder) as entries:
            stems = (entry.name.removesuffix(SUFFIX) for entry in entries if entry.name.endswith(SUFFIX))
            return sorted(stem for stem in stems if re.fullmatch(NAME, stem))

    def bank(self, name: str) -> ClassBank:
        """Return a bank as a whole, read anew.

        Raises:
            Problem: ``not-found``, or ``bank-unusable``.
        """
        return self._store(name).bank

    async def change(self, name: str, edit: Edit, if_match: str | None, existing: str | None) -> ClassBank:
        """Do as ``BankStore.change`` with a bank, one change of it at a time; one that is gone is not made again.

        Raises:
            Problem: ``not-found``, ``bank-unusable``, or one of ``BankStore.change``.
        """

        def edited(bank: ClassBank) -> ClassBank:
            if stamp_of(self._path(name)) is None:
                raise _missing(name)
            return edit(bank)

        async with self._locks.setdefault(name, asyncio.Lock()):
            work = in_background(lambda: self._store(name).change(edited, if_match, existing))
            return await asyncio.wrap_future(work)

    async def open(self, name: str) -> tuple[ClassSet, str]:
        """Return the classes of a bank as its file has them now, and the digest of its content.

        Raises:
            Problem: ``not-found``, or ``bank-unusable``.
        """
        stamp = await self._look(name)
        bank = self._open.get(name)  # not before: others may have opened it meanwhile
        if stamp is None:
            self._drop(name)
            raise _missing(name)
        retry = bank is not None and bank.classes is None and time.monotonic() - bank.at >= _RETRY_SECONDS
        if bank is None or bank.stamp != stamp or retry:
            bank = await self._opened(name, stamp)
        self._metrics.asked(name)
        if name in self._open:
            self._open.move_to_end(name)
        if bank.classes is None:
            raise Problem("bank-unusable", bank.digest)
        return bank.classes, bank.digest

    async def _look(self, name: str) -> Stamp:
        """Return the stamp of a file; that of the last look if it takes long, as on a network disk that hangs."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await asyncio.wrap_future(in_background(lambda: stamp_of(self._path(name))))
        except TimeoutError:
            if (bank := self._open.get(name)) is None:
                raise Problem("bank-unusable", f"bank {name}: its disk does not answer", _LOOK_SECONDS) from None
            return bank.stamp

    async def _opened(self, name: str, stamp: Stamp) -> OpenBank:
        """Open a bank off the event loop; requests that come together open it once."""
        key = name, stamp
        if (opening := self._opening.get(key)) is None:
            opening = self._opening[key] = asyncio.wrap_future(in_background(lambda: self._read(name, stamp)))
            opening.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(opening)  # others may wait for the same

    def _read(self, name: str, stamp: Stamp) -> OpenBank:
        try:
            bank = self._store(name).bank
            classes = self._slim(self._classifier.class_set(bank=bank))
        except (Problem, SarInferError) as error:
            reason = error.detail if isinstance(error, Problem) else f"bank {name}: {error}"
            _log.error("%s", reason)
            return OpenBank(stamp, None, reason, len(reason), time.monotonic())
        size = _NAME_BYTES * len(classes.names) + sum({id(a): a.nbytes for a in _arrays(classes)}.values())
        return OpenBank(stamp, classes, bank.content_digest, size, time.monotonic())

    def _slim(self, classes: ClassSet) -> ClassSet:
        """Return the classes without what only fitting and grouping need of their model: the precision."""
        slim = dataclasses.replace(self._plain, unknown=classes.model.unknown, sets=classes.model.sets)
        return dataclasses.replace(classes, model=slim)

    def _keep(self, key: tuple[str, Stamp], done: asyncio.Future[OpenBank]) -> None:
        name, _ = key
        del self._opening[key]
        if done.cancelled() or done.exception():
            return
        self._drop(name)
        self._open[name] = done.result()
        self._size += done.result().size
        while self._size > self._most and len(self._open) > 1:
            self._drop(next(iter(self._open)))
        self._metrics.open_banks.set(len(self._open))

    def _drop(self, name: str) -> None:
        if (bank := self._open.pop(name, None)) is not None:
            self._size -= bank.size

    def _path(self, name: str) -> Path:
        return self._folder / (name + SUFFIX)

    def _store(self, name: str) -> BankStore:
        """Return the file of a bank, read as a whole.

        Raises:
            Problem: ``not-found``, or ``bank-unusable``.
        """
        path = self._path(name)
        if stamp_of(path) is None:
            raise _missing(name)
        try:
            return BankStore(path, self._classifier.bundle)
        except SarInferError as error:
            reason = str(error).replace(str(path), f"bank {name}")  # an answer has no path of the server's
            raise Problem("bank-unusable", reason) from None


def _missing(name: str) -> Problem:
    return Problem("not-found", f"no bank {name}; GET /v1/banks lists them")


def _arrays(classes: ClassSet) -> Iterator[npt.NDArray[Any]]:
    """Yield the arrays of a class set without those of its model, whole where only a part is used."""
    linear = classes.linear
    unknown = linear.unknown.weights, linear.unknown.axes
    each = (*classes.several, *(rows for rows, _ in linear.pieces), linear.bias, *unknown, classes.positions)
    more = (classes.background, classes.thresholds, classes.translation, *(e.total for e in classes.evidence.values()))
    for array in (*each, *more):
        if array is not None:
            yield array.base if isinstance(array.base, np.ndarray) else array
