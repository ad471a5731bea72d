"""Types of arrays that several packages exchange, and their product."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
"""Pixels, embeddings and scores."""
Indices = npt.NDArray[np.intp]
"""Places along an axis of another array."""
_ROWS = 256
_FEW = 3
"""Queries for which a product row by row is faster than BLAS's, which first copies all rows."""


def products(queries: Floats, rows: Floats) -> Floats:
    """Return the inner products (N, C) of queries (N, D) and rows (C, D).

    Those of a few queries are computed only in this thread, so that they do not depend on one another. Threads of BLAS
    that a single query woke would spin for a while and take the cores from the encoder of the next image.
    """
    result: Floats = np.vecdot(queries[:, np.newaxis], rows) if len(queries) <= _FEW else queries @ rows.T
    return result


def product_chunks(several: Sequence[Floats], queries: Floats, cells: int) -> Iterator[tuple[int, Floats]]:
    """Yield the first position and the inner products (N, B) of some embeddings with queries (N, D), in order.

    Args:
        several: Embeddings (C, D), which follow each other.
        queries: (N, D).
        cells: Number of products at a time, about.
    """
    size, position = max(1, cells // max(1, len(queries))), 0
    for embeddings in several:
        for start in range(0, len(embeddings), size):
            chunk = embeddings[start : start + size]
            yield position, products(queries, chunk)
            position += len(chunk)


def nearest(embeddings: Floats, queries: Floats, k: int) -> tuple[Indices, Floats]:
    """Return the positions (N, K) of the unit embeddings (C, D) with the largest cosines, and these, by brute force.

    Args:
        embeddings: (C, D).
        queries: (N, D), unit embeddings.
        k: Number of positions, at most C.
    """
    k = min(k, len(embeddings))
    positions, cosines = np.empty((len(queries), k), np.intp), np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _ROWS):
        values = products(queries[start : start + _ROWS], embeddings)
        best = np.argpartition(-values, k - 1, axis=1)[:, :k] if 0 < k < len(embeddings) else np.argsort(-values)[:, :k]
        best.sort(axis=1)
        order = np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        positions[start : start + _ROWS] = best
        cosines[start : start + _ROWS] = np.take_along_axis(values, best, axis=1)
    return positions, cosines
