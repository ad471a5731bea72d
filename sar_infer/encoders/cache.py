"""Embeddings of names given at call time, kept for the next call."""

from __future__ import annotations

import threading
from collections import OrderedDict

from sar_infer._arrays import Floats

Key = tuple[str, str]
"""(what the row depends on beside the phrase, such as the encoder's digest; phrase)"""


class EmbeddingCache:
    """Least recently used (D,) rows by encoder and phrase; safe to share between threads and classifiers."""

    def __init__(self, capacity: int = 16_384) -> None:
        self._capacity = capacity
        self._rows: OrderedDict[Key, Floats] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Floats | None:
        """The row, now the most recently used, or None."""
        with self._lock:
            if key in self._rows:
                self._rows.move_to_end(key)
            return self._rows.get(key)

    def put(self, key: Key, row: Floats) -> None:
        """Keep a read-only copy of a row, dropping the least recently used where there are too many."""
        row = row.copy()
        row.flags.writeable = False
        with self._lock:
            self._rows[key] = row
            self._rows.move_to_end(key)
            if len(self._rows) > self._capacity:
                self._rows.popitem(last=False)


shared_cache = EmbeddingCache()
