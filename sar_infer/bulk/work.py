"""What is left to do of a run; plain values, so that it can be listed wherever it is worked off."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from sar_infer.bulk.items import Item, Piece
from sar_infer.bulk.outputs.job import Job
from sar_infer.bulk.sources.listing import Sources


@dataclass(frozen=True)
class Work:
    """The pieces of a job.

    Attributes:
        sources: Of the whole run.
        job: With the shard that is worked off here.
        done: Parts that are there already.
    """

    sources: Sources
    job: Job
    done: frozenset[str]

    def left(self) -> Iterator[Piece]:
        """Pieces without a part, in order."""
        return (piece for piece in self.job.own(self.sources.pieces()) if self.job.part(piece) not in self.done)


def batches(piece: Piece, size: int) -> Iterator[tuple[Item, ...]]:
    """The inputs of a piece, at most ``size`` at a time, in order; one empty batch where it has none.

    The same ones every time, so that answers do not depend on who computes them.
    """
    items = piece.unit.items()
    yield tuple(itertools.islice(items, size))
    while batch := tuple(itertools.islice(items, size)):
        yield batch
