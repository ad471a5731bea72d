"""Photos go through a graph a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
BATCH = 8


def batches(pixels: Sequence[Rows]) -> Iterator[Rows]:
    """Stacked pieces (N, 3, size, size) of photos (3, size, size)."""
    for start in range(0, len(pixels), BATCH):
        yield np.stack(pixels[start : start + BATCH])
