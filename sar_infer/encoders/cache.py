"""Caches for embeddings: of names that come with a call, and of photos by the bytes of their files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from sar_infer._arrays import Floats

Key = tuple[str, str]
"""Digest of the encoder, and the phrase."""
Value = TypeVar("Value")


class RecentCache(Generic[Value]):
    """Values by key, the least recently used dropped first; safe to share between threads."""

    def __init__(self, capacity: int = 16_384) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """Return a value, which becomes the most recently used, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Store a value; drop the least recently used if there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._capacity:
                self._values.popitem(last=False)


class EmbeddingCache(RecentCache[Floats]):
    """Embeddings (D,) by encoder and phrase."""

    def put(self, key: Key, value: Floats) -> None:
        """Store a read-only copy of an embedding."""
        value = value.copy()
        value.flags.writeable = False
        super().put(key, value)


shared_cache = EmbeddingCache()
photo_cache: RecentCache[tuple[bytes, Floats]] = RecentCache()
"""Digest of the pixels and embedding (D,) by encoder and SHA-256 of the file."""
