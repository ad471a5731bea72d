"""Pure functions on rows of embeddings, logits and scores."""

from __future__ import annotations

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.errors import BundleError

_SORTED = 256
"""Up to this many columns, sorting all of them is as fast as selecting the best."""


def softmax(logits: Floats) -> Floats:
    """Return the softmax over the last axis; the row maximum is subtracted first, so that no logit overflows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result


def top_k(scores: Floats, k: int) -> Indices:
    """Return indices (N, min(k, C)) of the largest entries in each row of (N, C), largest first, ties by column."""
    k = min(k, scores.shape[-1])
    if scores.shape[-1] <= max(_SORTED, 4 * k):
        return np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    least = np.partition(scores, -k, axis=-1)[:, -k]
    result = np.empty((len(scores), k), dtype=np.intp)
    for row, bound in enumerate(least):
        found = np.flatnonzero(~(scores[row] < bound))  # so that a row of NaN has its first columns, as when sorted
        result[row] = found[np.argsort(-scores[row, found], kind="stable")[:k]]
    return result


def unit_rows(rows: Floats) -> Floats:
    """Return rows (N, D) scaled to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    result: Floats = (rows / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return result


def finite(rows: Floats, source: str) -> Floats:
    """Return the rows unchanged.

    Raises:
        BundleError: One is not finite, so the graph that they come from, ``source``, is broken.
    """
    if not np.isfinite(rows).all():
        raise BundleError(f"{source}: gives numbers that are not finite; export the bundle again")
    return rows
