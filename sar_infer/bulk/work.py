"""The remaining pieces of a run, and a digest over all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sar_infer.bulk.items import Piece
from sar_infer.bulk.outputs.job import BulkJob
from sar_infer.bulk.sources.listing import InputSources
from sar_infer.bulk.sources.reader import Reader


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
        self,
        warn: Callable[[str], object] = lambda _: None,
        listed: Callable[[str], object] | None = None,
        reader: Reader | None = None,
    ) -> Iterator[Piece]:
        """Yield pieces without a part, in order; see ``InputSources.pieces``."""
        return self.sources.pieces(self._is_left, warn, listed, reader)

    def _is_left(self, number: int) -> bool:
        return self.job.shard.has(number) and number not in self.done


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
