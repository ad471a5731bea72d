"""From embeddings to ranked classes: pure functions on arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis; the row maximum is taken off first, so that no logit overflows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result


def top_k(scores: Floats, k: int) -> npt.NDArray[np.intp]:
    """Indices (N, min(k, C)) of the largest entries of each row of (N, C), largest first, ties in column order."""
    return np.argsort(-scores, axis=-1, kind="stable")[:, :k]


def unit_rows(rows: Floats) -> Floats:
    """Rows (N, D) scaled to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    result: Floats = (rows / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return result
