"""What is left to do of a run; plain values, so that it can be listed wherever it is worked off."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
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
        done: Parts that are there already, by piece.
    """

    sources: Sources
    job: Job
    done: Mapping[int, str]

    def left(self, warn: Callable[[str], object] = lambda _: None) -> Iterator[Piece]:
        """Pieces without a part, in order; ``warn`` is told of what is passed over in folders."""
        return self.sources.pieces(lambda number: self.job.shard.has(number) and number not in self.done, warn)


def batches(piece: Piece, size: int, passed_over: Callable[[], object]) -> Iterator[tuple[Item, ...]]:
    """The inputs of a piece, at most ``size`` at a time, in order; one empty batch where it has none.

    The same ones every time, so that answers do not depend on who computes them. ``passed_over`` is called for
    whatever in a piece is no input.
    """
    items = _inputs(piece, passed_over)
    yield tuple(itertools.islice(items, size))
    while batch := tuple(itertools.islice(items, size)):
        yield batch


def _inputs(piece: Piece, passed_over: Callable[[], object]) -> Iterator[Item]:
    for item in piece.unit.items():
        if item is None:
            passed_over()
        else:
            yield item
