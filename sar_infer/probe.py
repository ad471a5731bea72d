"""The picture that a bundle's manifest describes by a seed, with the vector that its encoder must give for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sar_infer.artefact import Probe

MIN_COSINE = 0.999
"""What a healthy encoder reaches by far: full precision differs in the seventh digit, a broken kernel in the first."""


def probe_picture(size: int, seed: int) -> npt.NDArray[np.uint8]:
    """The picture (size, size, 3) that a seed stands for."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def probe_cosine(probe: Probe, row: npt.NDArray[np.float32]) -> float:
    """Cosine between the probe's vector and a unit row (D,) that was computed here; NaN where the row is not finite."""
    return float(row @ np.array(probe.embedding, dtype=np.float32))
