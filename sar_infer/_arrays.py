"""Types of arrays that several rooms exchange, and their product."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
"""Pixels, embeddings and scores."""
Indices = npt.NDArray[np.intp]
"""Places along an axis of another array."""
_FEW = 3
"""Queries for which a product row by row is faster than BLAS's, which first copies all rows."""


def products(queries: Floats, rows: Floats) -> Floats:
    """Return the inner products (N, C) of queries (N, D) and rows (C, D).

    Those of a few queries are computed in this thread alone, so that they do not depend on one another. Threads of BLAS
    that a single query woke would spin for a while and take the cores from the encoder of the next image.
    """
    result: Floats = np.vecdot(queries[:, np.newaxis], rows) if len(queries) <= _FEW else queries @ rows.T
    return result
