"""Class names of requests: encoded one request at a time, and kept as class sets for later calls."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.classifier import Classifier
from sar_infer.classify.class_set import ClassSet
from sar_infer.server.metrics import Metrics
from sar_infer.server.problems import Quota
from sar_infer.text.names import Phrases

T = TypeVar("T")
_SetKey = tuple[ClassBank, tuple[tuple[str, tuple[str, ...]], ...], bool | None]
"""The bank itself, as no digest covers all of its classes' settings; phrases by name; and whether to choose only from
these names."""
LARGE = 10_000
"""Classes that are looked through on the event loop at most."""
_SET_ROWS = 32_768
"""Rows of all class sets that are kept, 64 MiB at 512 numbers a row; the last set is kept however large it is."""


class Names:
    """Makes class sets and embeds names in a thread of its own, called from one event loop.

    Args:
        classifier: Encodes them.
        most: Names of a request at most; twice as many may wait.
        metrics: Counts names and class sets.
    """

    def __init__(self, classifier: Classifier, most: int, metrics: Metrics) -> None:
        self._classifier = classifier
        self._quota = Quota(2 * most, "too many new class names are being encoded")
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(1, "names")
        self._sets: OrderedDict[_SetKey, asyncio.Future[ClassSet]] = OrderedDict()
        self._rows = 0  # of all these; thousands of sets would take long to count

    def close(self) -> None:
        """Stop the thread; all requests must have ended."""
        self._pool.shutdown(wait=False)

    async def class_set(self, classes: Phrases, only: bool | None, bank: ClassBank, *, keep: bool = True) -> ClassSet:
        """Return the class set of a call; calls that ask for the same at the same time share one encoding.

        Without ``keep`` it is made for this call: its bank was read for it, too.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: there is no class to choose from.
            Problem: ``overloaded``, if too many names are waiting.
        """
        if not keep:
            return await self._made(classes, only, bank)
        key = (bank, tuple(classes.items()), only)
        made = self._sets.get(key)
        self._metrics.sets.labels("miss" if made is None else "hit").inc()
        if made is None:
            made = asyncio.ensure_future(self._made(classes, only, bank))
            self._keep(key, made)
            made.add_done_callback(functools.partial(self._drop_failed, key))
        self._sets.move_to_end(key)
        return await asyncio.shield(made)  # others may wait for the same

    async def embed(self, names: Sequence[str]) -> tuple[Floats, int]:
        """Return unit rows (N, D) from the name encoder, and the number of tokens of the names.

        Raises:
            ClassNameError: a name is empty or too long.
            Problem: ``overloaded``, if too many names are waiting.
        """
        embed, tokens = self._classifier.embed_names, self._classifier.bundle.encode_name
        return await self._run(len(names), lambda: (embed(names), sum(len(tokens(name)) for name in names)))

    async def _made(self, classes: Phrases, only: bool | None, bank: ClassBank) -> ClassSet:
        count = sum(map(len, classes.values()))
        return await self._run(count, lambda: self._classifier.class_set(classes, only, bank))

    def _keep(self, key: _SetKey, made: asyncio.Future[ClassSet]) -> None:
        """Keep a class set while the bank stays the same; the least recently used ones make room."""
        if any(bank is not key[0] for bank, _, _ in itertools.islice(self._sets, 1)):
            self._sets.clear()
            self._rows = 0
        self._sets[key] = made
        self._rows += _rows(key)
        while self._rows > _SET_ROWS and len(self._sets) > 1:
            self._rows -= _rows(self._sets.popitem(last=False)[0])

    def _drop_failed(self, key: _SetKey, made: asyncio.Future[ClassSet]) -> None:
        if (made.cancelled() or made.exception()) and self._sets.get(key) is made:
            del self._sets[key]
            self._rows -= _rows(key)

    async def _run(self, count: int, work: Callable[[], T]) -> T:
        with self._quota.hold(count):
            self._metrics.names.inc(count)
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _rows(key: _SetKey) -> int:
    """Return how many classes a set has at most."""
    bank, classes, only = key
    return len(classes) + (0 if only else len(bank.names))
