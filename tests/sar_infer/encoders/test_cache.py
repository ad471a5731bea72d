from __future__ import annotations

import numpy as np

from sar_infer.encoders.cache import EmbeddingCache


def row(value: float) -> np.ndarray:
    return np.full(4, value, np.float32)


def test_the_least_recently_used_goes_first() -> None:
    cache = EmbeddingCache(capacity=2)
    cache.put(("e", "a"), row(1))
    cache.put(("e", "b"), row(2))
    assert cache.get(("e", "a")) is not None
    cache.put(("e", "c"), row(3))
    assert cache.get(("e", "b")) is None
    assert cache.get(("e", "a")) is not None
    assert cache.get(("e", "c")) is not None
