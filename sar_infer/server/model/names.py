"""The class names of requests: encoded one request after the other, in class sets that are kept for the next call."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.classifier import Classifier
from sar_infer.classify.class_set import ClassSet
from sar_infer.server.metrics import Metrics
from sar_infer.server.problems import Problem
from sar_infer.text.tokenizer import encode_name

T = TypeVar("T")
Phrases = Mapping[str, tuple[str, ...]]
_SetKey = tuple[str, tuple[tuple[str, tuple[str, ...]], ...], bool]
"""Digest of the bank, phrases by name, and whether they are all."""
_SET_ROWS = 32_768
"""Rows of all class sets that are kept, 64 MiB at 512 numbers a row; one set is, however large."""


class Names:
    """Makes class sets and embeds names, from one event loop and in a thread of its own.

    Args:
        classifier: Its name session must be open.
        most: Names of a request at most; twice as many may wait.
        metrics: Where names and class sets are counted.
    """

    def __init__(self, classifier: Classifier, most: int, metrics: Metrics) -> None:
        self._classifier = classifier
        self._most = most
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(1, "names")
        self._waiting = 0
        self._sets: OrderedDict[_SetKey, ClassSet] = OrderedDict()
        self._whole: tuple[ClassBank, ClassSet] | None = None
        self._making: dict[_SetKey, asyncio.Future[ClassSet]] = {}

    def close(self) -> None:
        """Give the thread back; requests that still run must have ended."""
        self._pool.shutdown(wait=False)

    async def class_set(self, classes: Phrases, only: bool, bank: ClassBank) -> ClassSet:
        """The classes of a call; those who ask for the same at once wait for one encoding.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: there is no class to choose from.
            Problem: ``overloaded``, where too many names wait already.
        """
        if not classes and not only:
            if self._whole is None or self._whole[0] is not bank:
                self._whole = bank, self._classifier.class_set(bank=bank)
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

    async def embed(self, names: Sequence[str]) -> tuple[Floats, int]:
        """Unit rows (N, D) from the name encoder, and how many tokens the names have.

        Raises:
            ClassNameError: a name is empty or too long.
            Problem: ``overloaded``, where too many names wait already.
        """
        return await self._run(len(names), lambda: (self._classifier.embed_names(names), self._tokens(names)))

    def _tokens(self, names: Sequence[str]) -> int:
        bundle = self._classifier.bundle
        return sum(len(encode_name(bundle.tokenizer, bundle.manifest.tokenizer, name)) for name in names)

    async def _make(self, key: _SetKey, bank: ClassBank) -> ClassSet:
        _, items, only = key
        count = sum(len(phrases) for _, phrases in items)
        made = await self._run(count, lambda: self._classifier.class_set(dict(items), only, bank))
        self._keep(key, made)
        return made

    def _keep(self, key: _SetKey, classes: ClassSet) -> None:
        """Remember a class set while the bank is the same, in place of those not used for longest."""
        if any(digest != key[0] for digest, _, _ in itertools.islice(self._sets, 1)):
            self._sets.clear()
        self._sets[key] = classes
        while sum(len(kept.names) for kept in self._sets.values()) > _SET_ROWS and len(self._sets) > 1:
            self._sets.popitem(last=False)

    async def _run(self, count: int, work: Callable[[], T]) -> T:
        if self._waiting and self._waiting + count > 2 * self._most:
            raise Problem("overloaded", "too many new class names are being encoded; try again", 1)
        self._waiting += count
        self._metrics.names.inc(count)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= count
