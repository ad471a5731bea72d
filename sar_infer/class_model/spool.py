"""Features of a stream on disk, so that EM can pass over a million photos again and again in constant memory.

A reservoir would keep fewer photos, and rare classes would lose theirs; rows of a million photos are two gigabytes, and
reading them takes seconds where encoding took hours. The files have no name and go with the process, however it ends.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Self

import numpy as np

from sar_infer._arrays import Floats


class FeatureSpool:
    """Keys and unit rows of photos in temporary files.

    Args:
        size: D, the length of a row.
    """

    def __init__(self, size: int) -> None:
        self._size, self._count = size, 0
        self._rows: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        self._keys: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    @classmethod
    def of(cls, size: int, pieces: Iterable[tuple[Sequence[str], Floats]]) -> FeatureSpool:
        """Return a spool of keys and rows (N, D), taken piece by piece."""
        spool = cls(size)
        try:
            for keys, rows in pieces:
                spool.add(keys, rows)
        except BaseException:
            spool.close()
            raise
        return spool

    def add(self, keys: Sequence[str], rows: Floats) -> None:
        """Add some photos."""
        self._rows.write(np.ascontiguousarray(rows, np.float32).tobytes())
        self._keys.write("".join(f"{json.dumps(key)}\n" for key in keys).encode())
        self._count += len(keys)

    @property
    def rows(self) -> Floats:
        """Return all rows (N, D), mapped from disk."""
        if not self._count:
            return np.empty((0, self._size), np.float32)
        self._rows.flush()
        return np.memmap(self._rows, np.float32, "r", shape=(self._count, self._size))

    def keys(self) -> Iterator[str]:
        """Yield all keys, in order."""
        self._keys.flush()
        self._keys.seek(0)
        for line in self._keys:
            yield json.loads(line)

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the disk back."""
        self._rows.close()
        self._keys.close()
