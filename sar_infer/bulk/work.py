"""The remaining pieces of a run, and how a piece is cut into batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sar_infer.bulk.items import Item, Piece
from sar_infer.bulk.outputs.job import BulkJob
from sar_infer.bulk.sources.listing import InputSources

_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Work:
    """The remaining pieces of a run, as plain values, so that any machine can list them.

    Attributes:
        sources: Inputs of the whole run.
        job: The run, with the shard of this machine.
        done: Parts that are finished already, by piece.
    """

    sources: InputSources
    job: BulkJob
    done: Mapping[int, str]

    def left(
        self, warn: Callable[[str], object] = lambda _: None, listed: Callable[[str], object] | None = None
    ) -> Iterator[Piece]:
        """Yield pieces without a part, in order; see ``InputSources.pieces`` for ``warn`` and ``listed``."""
        return self.sources.pieces(lambda number: self.job.shard.has(number) and number not in self.done, warn, listed)


class Listing:
    """A digest over all inputs of a run, whichever shard they belong to; None if nothing was added."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._any = False

    def add(self, piece: str) -> None:
        """Add what identifies the next piece."""
        self._digest.update(f"{piece}\n".encode())
        self._any = True

    @property
    def digest(self) -> str | None:
        """Return the SHA-256 (hex) of everything added."""
        return self._digest.hexdigest() if self._any else None


def batches(piece: Piece, size: int, passed_over: Callable[[], object]) -> Iterator[tuple[Item, ...]]:
    """Cut the inputs of a piece into batches, in order; one empty batch if it has none.

    Batches are the same every time, so that answers do not depend on the machine that computes them.

    Args:
        piece: The piece.
        size: Inputs of a batch at most; fewer if they hold 64 MiB of encoded images.
        passed_over: Called for each file in the piece that is no image.
    """
    batch: list[Item] = []
    held = number = 0
    for item in piece.unit.items():
        if item is None:
            passed_over()
            continue
        batch.append(item)
        held += item.held
        if len(batch) == size or held >= _BATCH_BYTES:
            yield tuple(batch)
            batch, held, number = [], 0, number + 1
    if batch or not number:
        yield tuple(batch)
