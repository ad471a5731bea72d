"""All cores of this machine: one process each, fed with batches by this one, which writes the parts.

A process decodes, encodes and ranks in one thread. A piece is cut into batches, so that one large shard keeps all of
them busy; batches come back in order and a bounded number is on the way. If a process dies, a picture that crashes its
decoder say, what was on the way is tried again alone, in halves, until the culprit is found and set aside.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any

from sar_infer.bulk.answers import Answerer, Answers, Recipe
from sar_infer.bulk.items import Flaw, Item, Piece
from sar_infer.bulk.outputs.rows import Form, Packed
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.work import Work, batches
from sar_infer.errors import DeviceError, SarInferError

Batch = tuple[Item, ...]
_AHEAD = 4
"""Batches on the way for each process."""
_AHEAD_BYTES = 256 * 2**20
"""Of images that this process has read for them."""
_worker: list[Any] = []
"""In a process of the pool: the answerer and the form, or why there is none."""


def run_local(work: Work, recipe: Recipe, form: Form, workers: int, batch_size: int, progress: Progress) -> None:
    """Write the parts of all pieces that are left, one after the other.

    Raises:
        SarInferError: a worker cannot start, the encoder fails, or a part cannot be written.
    """
    with _Pool(recipe, form, workers) as pool:
        cut = ((piece, batch) for piece in work.left() for batch in batches(piece, batch_size))
        for piece, group in itertools.groupby(pool.in_order(cut), key=lambda pair: pair[0]):
            with work.job.store.stage(work.job.part(piece)) as path:
                form.write(path, _packed(group, progress))
            progress.finished()


def _packed(answered: Iterable[tuple[Piece, Answers]], progress: Progress) -> Iterator[Packed]:
    for _, answers in answered:
        progress.count(answers.inputs, answers.rejected)
        yield answers.packed


class _Pool:
    """Processes that answer batches.

    Raises:
        SarInferError: none of them can start.
    """

    def __init__(self, recipe: Recipe, form: Form, workers: int) -> None:
        self._recipe, self._form, self._workers = recipe, form, workers
        self._pool = self._opened(workers)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def in_order(self, work: Iterable[tuple[Piece, Batch]]) -> Iterator[tuple[Piece, Answers]]:
        """Answers of every batch, in order, a bounded number ahead; more than one where a batch had to be divided."""
        waiting: deque[tuple[Piece, Batch, Future[Answers]]] = deque()
        for piece, batch in work:
            waiting.append((piece, batch, self._submit(batch)))
            while len(waiting) >= _AHEAD * self._workers or sum(_size(item[1]) for item in waiting) > _AHEAD_BYTES:
                yield from self._first(waiting)
        while waiting:
            yield from self._first(waiting)

    def _first(self, waiting: deque[tuple[Piece, Batch, Future[Answers]]]) -> Iterator[tuple[Piece, Answers]]:
        piece, batch, future = waiting.popleft()
        try:
            yield piece, future.result()
        except BrokenProcessPool:
            yield from ((piece, answers) for answers in self._alone(batch))

    def _submit(self, batch: Batch) -> Future[Answers]:
        try:
            return self._pool.submit(_answer, batch)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._opened(self._workers)
            return self._pool.submit(_answer, batch)

    def _alone(self, batch: Batch) -> Iterator[Answers]:
        """Answers of a batch that was on the way when a process died: of all inputs but those that kill one again."""
        try:
            with self._opened(1) as pool:
                answers = pool.submit(_answer, batch).result()
        except BrokenProcessPool:
            if len(batch) == 1:
                batch = (Item(batch[0].key, Flaw("crash", "the process that read it died: memory, or its decoder")),)
                yield from self._alone(batch)
            else:
                yield from self._alone(batch[: len(batch) // 2])
                yield from self._alone(batch[len(batch) // 2 :])
        else:
            yield answers

    def _opened(self, workers: int) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (self._recipe, self._form))
        try:
            pool.submit(_ready).result()
        except BrokenProcessPool:
            raise DeviceError(
                "no worker can start: a process died while it opened the bundle; too little memory?"
            ) from None
        return pool


def _size(batch: Batch) -> int:
    return sum(len(item.source) for item in batch if isinstance(item.source, bytes))


def _begin(recipe: Recipe, form: Form) -> None:
    """In a new process: open the bundle; the parent decides when it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answerer = Answerer(recipe)
        answerer.start()
        _worker.append((answerer, form))
    except SarInferError as error:
        _worker.append(error)


def _end_with_parent() -> None:
    """Killed parents leave their processes waiting for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _ready() -> None:
    if isinstance(_worker[0], SarInferError):
        raise _worker[0]


def _answer(batch: Batch) -> Answers:
    _ready()
    answerer: Answerer = _worker[0][0]
    return answerer.answer(batch, _worker[0][1])
