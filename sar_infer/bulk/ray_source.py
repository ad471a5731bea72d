"""The pieces of a run as a dataset of Ray's: one task on the driver's node lists them while others work."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from typing import Any

import pyarrow
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from sar_infer.bulk.work import Work


class PieceSource(Datasource):
    """A block for every piece that is left, with one row and the column ``piece``.

    Args:
        work: Whose pieces.
        folder: Where relative paths start.
    """

    def __init__(self, work: Work, folder: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Ray's
        self._work = work
        self._folder = folder

    @property
    def supports_distributed_reads(self) -> bool:
        """No: the driver's node is the one that the run cannot lose anyway."""
        return False

    def estimate_inmemory_data_size(self) -> None:
        """Nobody knows before they are listed."""
        return

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:  # noqa: ARG002 - Ray's signature
        """One, since a listing has one order."""
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._blocks, metadata)]

    def _blocks(self) -> Iterator[Any]:
        os.chdir(self._folder)
        for piece in self._work.left():
            yield pyarrow.table({"piece": [pickle.dumps(piece)]})
