"""The banks of a server: that of ``--bank``, and those of a folder by name, opened when they are asked for.

A request makes one ``stat`` of each bank that it asks for, so what another process writes, adds or removes is in the
next answer; nothing watches the folder. Of an open bank only what ranks images stays: weights, names, thresholds. The
bank of ``--bank`` stays as a whole, and if its file cannot be used, the classes of before stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank
from sar_infer.bundle.bank_file import SUFFIX, BankFile, Stamp, check_place, stamp_of
from sar_infer.class_model.model import ClassModel
from sar_infer.classifier import Classifier
from sar_infer.classify.class_set import ClassSet
from sar_infer.errors import BankError, SarInferError, WriteError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.sizing import banks_limit, memory_limit
from sar_infer.server.problems import Problem, Quota, public
from sar_infer.server.settings import Settings

NAME = r"^[A-Za-z0-9._-]{1,64}$"
"""Pattern of a bank's name: that of its file without the suffix, never a path."""
BUSY_SECONDS = 2
"""Seconds after which a change that came between others may be tried again."""
_LOOK_SECONDS = 2.0
"""Seconds that a request waits for a look at a file; then an open bank ranks as of its last look."""
_OPEN_SECONDS = 10.0
"""Seconds that a request waits for a bank that is not open."""
_RETRY_SECONDS = 10.0
"""Time between two attempts to open a file that cannot be used."""
_NAME_BYTES = 100
"""Bytes of a class name in memory, with its places in tuples."""
_MOST_CHANGES = 64
_THREADS = ThreadPoolExecutor(128, "background")
"""Threads that stay: one for each look at a file took 0.1 ms of each request. A disk that hangs holds one a bank."""
T = TypeVar("T")
Edit = Callable[[ClassBank], tuple[ClassBank, T]]
"""A use case of ``sar_infer.bank`` with its arguments; returns the changed bank, and what its caller wants besides."""
_log = logging.getLogger("sar_infer.server")


class OpenBank(NamedTuple):
    """A bank in memory.

    Attributes:
        name: None is that of ``--bank``.
        stamp: Of its file when it was opened.
        classes: What ranks images; None if there is no class, or the file cannot be used.
        digest: Of its content.
        size: Bytes in memory; 0 of the bank of ``--bank``.
        at: When it was opened, of ``time.monotonic``.
        fault: Why its file cannot be used; the classes are those of before.
        whole: The bank itself; only that of ``--bank``.
    """

    name: str | None
    stamp: Stamp
    classes: ClassSet | None
    digest: str
    size: int
    at: float
    fault: str | None = None
    whole: ClassBank | None = None


class Banks:
    """Banks by name, None being that of ``--bank``, or the bundle's; requests use them on one event loop.

    Args:
        settings: Name the file and the folder. A missing file is made at the first change.
        classifier: Of the bundle that they belong to.
        metrics: Counts them.

    Attributes:
        main: The bank of ``--bank`` at the last look, else that of the bundle.

    Raises:
        InputError: The file's folder is missing, or the file cannot be changed where it is.
        BankError: The file is damaged or belongs to another bundle, or is missing and cannot be made; SchemaError if it
            needs a newer reader.
    """

    def __init__(self, settings: Settings, classifier: Classifier, metrics: Metrics) -> None:
        self._classifier, self._bundle, self._metrics = classifier, classifier.bundle, metrics
        self._path, self._folder = settings.bank, settings.banks
        self._most = banks_limit(settings, memory_limit())
        self._open: OrderedDict[str, OpenBank] = OrderedDict()
        self._size = 0
        self._looks: WeakValueDictionary[str | None, Shared[OpenBank]] = WeakValueDictionary()
        self._turns: WeakValueDictionary[str | None, _Turn] = WeakValueDictionary()
        manifest = self._bundle.manifest
        self._plain = ClassModel.unfitted(manifest.embed_dim, manifest.logit_scale)
        if (path := self._path) is not None:
            check_place(path, changeable=settings.writable)
        self._file = None if path is None else BankFile(path, self._bundle, missing=settings.writable)
        try:
            self.main = self._read(None, None if path is None else stamp_of(path))
            if self.main.classes is not None:  # a row of a large file is not looked at when it is opened
                row = np.full((1, manifest.embed_dim), manifest.embed_dim**-0.5, np.float32)
                next(classifier.rank(row, self.main.classes, 1))
        except BankError as error:
            raise BankError(f"{path or self._bundle.location}: {error}") from None

    @property
    def bank(self) -> ClassBank:
        """Return the bank of ``--bank`` at the last look, else that of the bundle."""
        return cast("ClassBank", self.main.whole)

    def names(self) -> list[str]:
        """Return the names of all banks of the folder, sorted."""
        if self._folder is None:
            return []
        with os.scandir(self._folder) as entries:
            stems = (entry.name.removesuffix(SUFFIX) for entry in entries if entry.name.endswith(SUFFIX))
            return sorted(stem for stem in stems if re.fullmatch(NAME, stem))

    async def open(self, *names: str | None) -> list[OpenBank]:
        """Return banks as their files have them now, with what other processes have written.

        A look that takes longer than ``_LOOK_SECONDS``, as on a network disk that hangs, leaves what was open before.

        Raises:
            Problem: ``invalid-request``, ``not-found``, or ``bank-unusable``.
        """
        for name in names:
            self._check(name)
        banks = [self._known(name) for name in names]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OPEN_SECONDS if None in banks else _LOOK_SECONDS):
                banks = await asyncio.gather(*map(self._look, names))
        for name, bank in zip(names, banks, strict=True):
            if bank is None:
                raise Problem("bank-unusable", f"bank {name}: its disk does not answer", BUSY_SECONDS)
            if name is not None:
                self._metrics.asked(name)
                if bank.fault is not None:
                    raise Problem("bank-unusable", bank.fault)
        return cast("list[OpenBank]", banks)

    async def look(self) -> None:
        """Take up what others have written to the file of ``--bank``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._look(None)

    async def whole(self, name: str | None) -> ClassBank:
        """Return a bank as a whole; one of the folder is read for this call.

        Raises:
            Problem: As of ``open``.
        """
        (bank,) = await self.open(name)
        return await in_thread(lambda: self._bank_file(name).bank) if bank.whole is None else bank.whole

    async def change(self, name: str | None, edit: Edit[T]) -> tuple[ClassBank, T]:
        """Apply an edit to a bank as its file has it now, under its lock; write the result and return what it returns.

        One change of a bank at a time. A bank of the folder that is gone is not made again.

        Args:
            name: The bank.
            edit: What it raises is passed on.

        Raises:
            Problem: ``conflict`` (the file cannot be used), ``not-stored``, ``overloaded``, or as of ``open``; nothing
                was changed.
        """
        self._check(name)
        turn = self._turns.setdefault(name, _Turn())
        with turn.changes.hold(1):
            async with turn.lock:
                return await in_thread(lambda: self._changed(name, edit))

    def _changed(self, name: str | None, edit: Edit[T]) -> tuple[ClassBank, T]:
        file = self._bank_file(name)
        with contextlib.ExitStack() as stack:
            try:
                locked, bank = stack.enter_context(file.changing())
            except WriteError:
                raise Problem("overloaded", "another process is changing the bank file", BUSY_SECONDS) from None
            except BankError as error:
                reason = f"another process changed the bank file, which cannot be used: {public(error, file.path)}"
                raise Problem("conflict", reason) from None
            if name is not None and stamp_of(file.path) is None:
                raise _missing(name)
            after, more = edit(bank)
            if after is not bank:
                try:
                    file.save(locked, after)
                except OSError as error:
                    reason = f"{file.path.name}: the change cannot be written and was not made ({error.strerror})"
                    _log.error("%s: %s", file.path, error)
                    raise Problem("not-stored", reason) from error
            return after, more

    def _check(self, name: str | None) -> None:
        if name is None and self._path is None and self._folder is not None:
            raise Problem("invalid-request", "this server has several banks: add ?bank=NAME; GET /v1/banks lists them")
        if name is not None and self._folder is None:
            raise Problem("invalid-request", "bank: this server has one bank; leave it out, or start it with --banks")

    def _known(self, name: str | None) -> OpenBank | None:
        return self.main if name is None else self._open.get(name)

    async def _look(self, name: str | None) -> OpenBank:
        """Look at a file off the event loop, and open the bank if it has changed.

        Calls that come together share a look, which begins after all of them.

        Raises:
            Problem: ``not-found``.
        """
        if name is None and self._path is None:
            return self.main

        async def look() -> OpenBank:
            bank = await in_thread(lambda: self._opened(name))
            self._keep(name, bank)
            if bank is None:
                raise _missing(name)
            return bank

        return await asyncio.shield(self._looks.setdefault(name, Shared(look))())

    def _opened(self, name: str | None) -> OpenBank | None:
        """Return a bank as its file has it now; None if the file is gone."""
        path = self._path if name is None else self._named(name)
        bank, stamp = self._known(name), None if path is None else stamp_of(path)
        if stamp is None and name is not None:
            return None
        if bank is not None and _holds(bank, stamp):
            return bank
        try:
            return self._read(name, stamp)
        except (Problem, SarInferError) as error:
            fault = error.detail if isinstance(error, Problem) else f"bank {name}: {error}"
            if bank is None or bank.stamp != stamp:
                changed = f"the bank file was changed and cannot be used; the old classes stay: {error}"
                _log.error("%s", changed if name is None else fault)
            if name is None:
                return self.main._replace(stamp=stamp, at=time.monotonic(), fault=fault)
            return OpenBank(name, stamp, None, "", len(fault), time.monotonic(), fault)

    def _read(self, name: str | None, stamp: Stamp) -> OpenBank:
        if name is not None:
            whole = self._bank_file(name).bank
            classes = self._classifier.class_set(bank=whole)
            used = {field: getattr(classes.model, field) for field in ("unknown", "sets", "photos")}
            classes = dataclasses.replace(classes, model=dataclasses.replace(self._plain, **used))  # fits use the rest
            size = _NAME_BYTES * len(classes.names) + sum({id(a): a.nbytes for a in _arrays(classes)}.values())
            return OpenBank(name, stamp, classes, whole.state_digest, size, time.monotonic())
        whole = self._bundle.bank if self._file is None else self._file.look()
        some = self._classifier.class_set(bank=whole) if whole.names else None
        return OpenBank(name, stamp, some, whole.state_digest, 0, time.monotonic(), None, whole)

    def _keep(self, name: str | None, bank: OpenBank | None) -> None:
        """Keep a bank as the one that was used last; the least recently used ones make room."""
        if name is None:
            self.main = bank or self.main
            return
        if (before := self._open.pop(name, None)) is not None:
            self._size -= before.size
        if bank is not None:
            self._open[name] = bank
            self._size += bank.size
        while self._size > self._most and len(self._open) > 1:
            self._size -= self._open.popitem(last=False)[1].size
        self._metrics.open_banks.set(len(self._open))

    def _named(self, name: str) -> Path:
        return cast("Path", self._folder) / (name + SUFFIX)

    def _bank_file(self, name: str | None) -> BankFile:
        """Return the file of a bank; one of the folder is read as a whole.

        Raises:
            Problem: ``not-found``, or ``bank-unusable``.
        """
        if name is None:
            return self._file  # type: ignore[return-value]  # routes that change classes are refused without one
        path = self._named(name)
        if stamp_of(path) is None:
            raise _missing(name)
        try:
            return BankFile(path, self._bundle)
        except SarInferError as error:
            raise Problem("bank-unusable", str(error).replace(str(path), f"bank {name}")) from None


class _Turn:
    """The changes of a bank, one at a time; so many wait at most, so that one bank does not hold up others."""

    def __init__(self) -> None:
        self.lock, self.changes = asyncio.Lock(), waiting_changes()


def waiting_changes() -> Quota:
    """Return the count of changes of one bank that may wait for their turn."""
    return Quota(_MOST_CHANGES, "too many changes are waiting")


class Shared(Generic[T]):
    """Work whose calls that come together share one run, which begins after all of them; one run at a time."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work, self._lock = work, asyncio.Lock()
        self._next: asyncio.Future[T] | None = None

    def __call__(self) -> asyncio.Future[T]:
        """Return the result of the next run."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._run())
        return self._next

    async def _run(self) -> T:
        async with self._lock:
            self._next = None  # who comes from here on needs another run
            return await self._work()


async def in_thread(work: Callable[[], T]) -> T:
    """Return the result of work that would block the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)


def _holds(bank: OpenBank, stamp: Stamp) -> bool:
    """Tell whether a bank is what its file has, or need not be tried again yet; that of a file that is gone stays."""
    fresh = bank.fault is None or time.monotonic() - bank.at < _RETRY_SECONDS
    return fresh and (bank.stamp == stamp or (stamp is None and bank.name is None))


def _missing(name: str | None) -> Problem:
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
