"""What is left to do of a run; plain values, so that it can be listed wherever it is worked off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sar_infer.bulk.items import Item, Piece
from sar_infer.bulk.outputs.job import Job
from sar_infer.bulk.sources.listing import Sources

_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Work:
    """The pieces of a job.

    Attributes:
        sources: Of the whole run.
        job: With the shard that is worked off here.
        done: Parts that are there already, by piece.
    """

    sources: Sources
    job: Job
    done: Mapping[int, str]

    def left(self, warn: Callable[[str], object] = lambda _: None) -> Iterator[Piece]:
        """Pieces without a part, in order; ``warn`` is told of what is passed over in folders."""
        return self.sources.pieces(lambda number: self.job.shard.has(number) and number not in self.done, warn)


def batches(piece: Piece, size: int, passed_over: Callable[[], object]) -> Iterator[tuple[Item, ...]]:
    """Cut the inputs of a piece into batches, in order; one empty batch where it has none.

    They are the same every time, so that answers do not depend on who computes them.

    Args:
        piece: The piece.
        size: Inputs of a batch at most; fewer where they hold 64 MiB of encoded images.
        passed_over: Called for whatever in the piece is no input.
    """
    batch: list[Item] = []
    held = number = 0
    for item in _inputs(piece, passed_over):
        batch.append(item)
        held += item.held
        if len(batch) == size or held >= _BATCH_BYTES:
            yield tuple(batch)
            batch, held, number = [], 0, number + 1
    if batch or not number:
        yield tuple(batch)


def _inputs(piece: Piece, passed_over: Callable[[], object]) -> Iterator[Item]:
    for item in piece.unit.items():
        if item is None:
            passed_over()
        else:
            yield item
