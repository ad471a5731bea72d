"""Read tar shards and Parquet files in a process of its own: a file that crashes or hangs it costs its own rows."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sar_infer.bulk.items import Item, Unit
from sar_infer.bulk.sources.row_groups import RowGroup
from sar_infer.bulk.sources.tars import TarShard
from sar_infer.errors import DeviceError, SarInferError, reason_of
from sar_infer.processes.worker import DeathError, TimeLimitError, Worker

Batch = tuple[Item, ...]
_LONGEST = 600.0
"""Seconds for the next batch of a file, or for the footer of a Parquet file."""
_BATCH_BYTES = 64 * 2**20
_open: list[Iterator[tuple[Batch, int]]] = []
"""In the process: the batches of the file that is being read."""


class Reader:
    """A process that reads files for this one. The first call starts it, and the next after it has died.

    One thread at a time may use it.
    """

    def __init__(self) -> None:
        self._worker: Worker[Any] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.dismiss()
            self._worker.ended()
            self._worker = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function of a module returns in the process.

        Raises:
            DeviceError: the process cannot start.
            OSError: it died, or took too long.
            Exception: whatever the function raised.
        """
        worker = self._started()
        try:
            return worker.answer((function, *arguments))
        except TimeLimitError:
            self._worker = None
            raise OSError(f"reading took more than {_LONGEST:g} s") from None
        except DeathError as error:
            self._worker = None
            reason = f"the process that read it died (exit code {error.exit_code}): memory, or a damaged file"
            raise OSError(reason) from None

    def batches(self, unit: Unit, size: int, passed_over: Callable[[int], object]) -> Iterator[Batch]:
        """Cut the inputs of a unit into batches, in order; one empty batch if it has none.

        Batches are the same every time, so that answers do not depend on the machine that computes them.

        Args:
            unit: The inputs.
            size: Inputs of a batch at most; fewer if they hold 64 MiB of encoded images.
            passed_over: Called with the number of files that are no images.

        Raises:
            DeviceError: the process cannot start.
        """
        if not isinstance(unit, TarShard | RowGroup):  # whose images others open
            yield from (batch for batch, _ in cut(unit.items(), size))
            return
        number = 0
        try:
            answer = self.call(_begin, unit, size)
            while answer is not None:
                batch, others = answer
                passed_over(others)
                number += len(batch)
                yield batch
                answer = self.call(_next)
        except SarInferError:
            raise
        except Exception as error:  # too little memory for a batch, or the process died
            self.close()  # an answer may have been received in part
            yield (unit.remainder(number, reason_of(error)),)

    def _started(self) -> Worker[Any]:
        if self._worker is not None and not self._worker.alive:  # killed while it waited, by no fault of the next file
            self.close()
        if self._worker is None:
            try:
                self._worker = Worker(_load, _LONGEST)
                self._worker.loaded(_LONGEST)
            except Exception as error:
                self.close()
                raise DeviceError(f"no process can start that reads files: {reason_of(error)}") from None
        return self._worker


def cut(items: Iterable[Item | None], size: int) -> Iterator[tuple[Batch, int]]:
    """Yield batches of inputs, and how many files that are no images came with each; see ``Reader.batches``."""
    batch: list[Item] = []
    held = others = number = 0
    for item in items:
        if item is None:
            others += 1
            continue
        batch.append(item)
        held += item.held
        if len(batch) == size or held >= _BATCH_BYTES:
            yield tuple(batch), others
            batch, held, others, number = [], 0, 0, number + 1
    if batch or others or not number:
        yield tuple(batch), others


def _load() -> Callable[..., Any]:
    return operator.call


def _begin(unit: TarShard | RowGroup, size: int) -> tuple[Batch, int] | None:
    _open[:] = [cut(unit.items(), size)]
    return _next()


def _next() -> tuple[Batch, int] | None:
    if not _open:
        raise OSError("the process that read it was killed")
    return next(_open[0], None)
