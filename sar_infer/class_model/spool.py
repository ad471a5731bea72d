"""Features of a stream, so that EM can pass over a million photos again and again in constant memory.

A reservoir would keep fewer photos, and rare classes would lose theirs; rows of a million photos are two gigabytes, and
reading them takes seconds where encoding took hours. The first thousands stay in memory. Beyond that there are
temporary files, which have no name and go with the process, however it ends.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.errors import WriteError

IN_MEMORY = 4096
"""Photos at most of which no file is written, 8 MiB at 512 numbers each."""


class FeatureSpool(ExitStack):
    """Keys and unit rows of photos, in temporary files if there are many; ``close`` gives the disk back.

    Args:
        size: D, the length of a row.
        chunks: Keys and rows (N, D) of photos, which are read once.

    Raises:
        WriteError: There are many photos, and the folder for temporary files is missing or full.
    """

    def __init__(self, size: int, chunks: Iterable[tuple[Sequence[str], Floats]] = ()) -> None:
        super().__init__()
        self._size, self._count, most = size, 0, 4 * size * IN_MEMORY
        with ExitStack() as files:
            self._rows, self._keys = (files.enter_context(tempfile.SpooledTemporaryFile[bytes](most)) for _ in range(2))
            for keys, rows in chunks:
                self._add(keys, rows)
            self.push(files.pop_all())

    def _add(self, keys: Sequence[str], rows: Floats) -> None:
        """Add some photos."""
        try:
            self._rows.write(np.ascontiguousarray(rows, np.float32).tobytes())
            self._keys.write("".join(f"{json.dumps(key)}\n" for key in keys).encode())
            self._rows.flush()
            self._keys.flush()
        except OSError as error:
            raise WriteError(
                f"{tempfile.tempdir or 'temporary files'}: no space for the embeddings of {self._count + len(keys):,} "
                f"photos ({error.strerror or error}); set TMPDIR to another folder"
            ) from None
        self._count += len(keys)

    @property
    def rows(self) -> Floats:
        """Return all rows (N, D), mapped from disk if they are there."""
        if self._count <= IN_MEMORY:
            self._rows.seek(0)
            return np.frombuffer(self._rows.read(), np.float32).reshape(-1, self._size)
        return np.memmap(self._rows, np.float32, "r", shape=(self._count, self._size))

    def keys(self) -> Iterator[str]:
        """Yield all keys, in order."""
        self._keys.seek(0)
        for line in self._keys:
            yield json.loads(line)

    def __len__(self) -> int:
        return self._count
