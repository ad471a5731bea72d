"""Processes of this machine that read and answer pieces, in order, even if a file or an image crashes one of them.

One process reads tar shards and Parquet files and hands over their images (``sources.reader``). Each of the others
decodes, encodes and ranks in one thread; batches come back in order, and a bounded number is in flight. If such a
process dies, say because an image crashes its decoder, its batch is tried again when nothing else is in flight and all
memory is its own, then in halves, until the culprit is found and set aside. A process that takes too long to decode one
image is ended (``signals.deadline``), and its batch is tried again image by image, since every further try with the
culprit takes as long.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial

from sar_infer.bulk.items import Flaw, Item, Piece
from sar_infer.bulk.outputs.job import BulkJob
from sar_infer.bulk.outputs.rows import Packed, RowFormat
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.sources.reader import Batch, Reader
from sar_infer.bulk.worker import AnsweredRows, WorkerOptions, begin
from sar_infer.errors import DeviceError, SarInferError, reason_of
from sar_infer.processes.pool import StartError, WorkerPool
from sar_infer.processes.worker import DeathError, TimeLimitError

_AHEAD = 4
"""Batches in flight for each process."""
_AHEAD_BYTES = 256 * 2**20
"""The most bytes of images in batches in flight."""


class BatchPool:
    """Processes that answer pieces.

    Attributes:
        reader: The process that reads files with many images.

    Args:
        options: How to answer.
        form: The form of the rows.
        workers: Processes that answer.

    Raises:
        SarInferError: one of them cannot start.
    """

    def __init__(self, options: WorkerOptions, form: RowFormat, workers: int) -> None:
        self._options, self._form, self._workers = options, form, workers
        self.reader = Reader()
        self._pool: WorkerPool[AnsweredRows] = WorkerPool(partial(begin, options, form), workers)
        try:
            self._pool.start()
        except BaseException as error:
            self._pool.close(now=True)
            raise _refusal(error) from None

    def __enter__(self) -> BatchPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(now=kind is not None)

    def close(self, *, now: bool = False) -> None:
        """End the processes: when they have answered the batch they are at, or ``now``."""
        self.reader.close()
        self._pool.close(now=now)

    def write_parts(self, pieces: Iterable[Piece], job: BulkJob, batch_size: int, progress: Progress) -> dict[int, str]:
        """Write the parts of pieces, one after the other, and return their names by piece.

        Args:
            pieces: The pieces, taken as they are needed.
            job: Where the parts are kept.
            batch_size: Images encoded together.
            progress: Notified of inputs and parts.

        Raises:
            WriteError: a part cannot be written.
            SarInferError: the encoder fails, or no process can start.
        """
        written: dict[int, str] = {}
        answers = self.in_order(pieces, batch_size, progress.pass_over)
        for piece, group in itertools.groupby(answers, key=lambda pair: pair[0]):
            part_name = job.part(piece)
            with job.store.stage(part_name) as path:
                self._form.write(path, _packed(group, progress))
            written[piece.number] = part_name
            progress.finished()
        return written

    def in_order(
        self, pieces: Iterable[Piece], batch_size: int, passed_over: Callable[[int], object]
    ) -> Iterator[tuple[Piece, AnsweredRows]]:
        """Yield the answers of every batch, in order; several if a batch had to be divided.

        A piece is cut into batches, so that one large shard keeps all processes busy; few batches are in flight.

        Args:
            pieces: The pieces, taken as they are needed.
            batch_size: Inputs of a batch at most.
            passed_over: Called with the number of files in a piece that are no images.

        Raises:
            SarInferError: the encoder fails, or no process can start.
        """
        waiting: deque[tuple[Piece, Batch, Future[AnsweredRows]]] = deque()
        for piece in pieces:
            for batch in self.reader.batches(piece.unit, batch_size, passed_over):
                waiting.append((piece, batch, self._pool.submit(batch)))
                while len(waiting) >= _AHEAD * self._workers or sum(_size(item[1]) for item in waiting) > _AHEAD_BYTES:
                    yield from self._first(waiting)
        while waiting:
            yield from self._first(waiting)

    def _first(self, waiting: deque[tuple[Piece, Batch, Future[AnsweredRows]]]) -> Iterator[tuple[Piece, AnsweredRows]]:
        piece, batch, future = waiting.popleft()
        try:
            answers = _result(future)
        except SarInferError:
            raise
        except Exception as error:  # its process died, or raised something unforeseen
            wait([others for *_, others in waiting])
            yield from ((piece, answers) for answers in self._again(batch, error))
        else:
            yield piece, answers

    def _again(self, batch: Batch, error: Exception) -> Iterator[AnsweredRows]:
        """Yield the answers of a batch that raised ``error``; inputs that fail again are set aside."""
        size = 1 if isinstance(error, TimeLimitError) else len(batch)
        for start in range(0, len(batch), size or 1):
            yield from self._alone(batch[start : start + size])

    def _alone(self, batch: Batch) -> Iterator[AnsweredRows]:
        """Yield the answers of a batch in halves if its process dies too."""
        try:
            answers = [self._answer(batch)]
        except SarInferError:
            raise
        except Exception as error:
            half = len(batch) // 2
            if half:
                yield from self._again(batch[:half], error)
                yield from self._again(batch[half:], error)
                return
            answers = [self._without(item, error) for item in batch]
        yield from answers

    def _without(self, item: Item, error: Exception) -> AnsweredRows:
        try:
            return self._answer((Item(item.key, self._flaw(error)),))
        except SarInferError:
            raise
        except Exception as again:
            raise DeviceError(f"a worker fails, whatever it is given: {reason_of(again)}") from None

    def _flaw(self, error: Exception) -> Flaw:
        if isinstance(error, TimeLimitError):
            return Flaw("timeout", f"took more than {self._options.image_timeout:g} s to decode (--image-timeout)")
        died = isinstance(error, DeathError)
        return Flaw(
            "crash",
            f"the process that read it {'died: memory, or its decoder' if died else f'failed: {reason_of(error)}'}",
        )

    def _answer(self, batch: Batch) -> AnsweredRows:
        return _result(self._pool.submit(batch))


def _packed(answers: Iterable[tuple[Piece, AnsweredRows]], progress: Progress) -> Iterator[Packed]:
    for _, rows in answers:
        progress.count(rows.inputs, rows.rejected)
        yield rows.packed


def _result(future: Future[AnsweredRows]) -> AnsweredRows:
    try:
        return future.result()
    except StartError as error:
        raise _refusal(error) from None


def _refusal(error: BaseException) -> BaseException:
    """Return what a run ends with if no process can start."""
    if not isinstance(error, StartError):
        return error
    if isinstance(error.__cause__, SarInferError):
        return error.__cause__
    if isinstance(error.__cause__, DeathError):
        return DeviceError("no worker can start: a process died while it opened the bundle; too little memory?")
    return DeviceError(f"no worker can start: {reason_of(error.__cause__ or error)}; fewer --workers?")


def _size(batch: Batch) -> int:
    return sum(item.held for item in batch)
