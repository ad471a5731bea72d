"""A cache for the embeddings of names that come with a call."""

from __future__ import annotations

import threading
from collections import OrderedDict

from sar_infer._arrays import Floats

Key = tuple[str, str]
"""Digest of the encoder, and the phrase."""


class EmbeddingCache:
    """Rows (D,) by encoder and phrase, the least recently used dropped first; safe to share between threads."""

    def __init__(self, capacity: int = 16_384) -> None:
        self._capacity = capacity
        self._rows: OrderedDict[Key, Floats] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Floats | None:
        """Return a row, which becomes the most recently used, or None."""
        with self._lock:
            if key in self._rows:
                self._rows.move_to_end(key)
            return self._rows.get(key)

    def put(self, key: Key, row: Floats) -> None:
        """Keep a read-only copy of a row; drop the least recently used if there are too many."""
        row = row.copy()
        row.flags.writeable = False
        with self._lock:
            self._rows[key] = row
            self._rows.move_to_end(key)
            if len(self._rows) > self._capacity:
                self._rows.popitem(last=False)


shared_cache = EmbeddingCache()
