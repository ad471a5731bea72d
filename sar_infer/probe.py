"""The picture that a bundle's manifest describes by a seed, with the vector that its encoder must give for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sar_infer.artefact import Probe, Variant

MIN_COSINE = 0.999
"""What a healthy encoder reaches by far: full precision differs in the seventh digit, a broken kernel in the first."""

_VARIANT_TOLERANCE = 0.01
"""Of a smaller graph, whose own cosine at export is known: kernels of other CPUs round otherwise."""


def least_cosine(variant: Variant | None = None) -> float:
    """The least cosine to the probe's vector that a healthy encoder gives; ``variant`` is None for the fp32 graph."""
    expected = None if variant is None else variant.probe_cosine
    return MIN_COSINE if expected is None else min(MIN_COSINE, expected - _VARIANT_TOLERANCE)


def probe_picture(size: int, seed: int) -> npt.NDArray[np.uint8]:
    """The picture (size, size, 3) that a seed stands for."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def probe_cosine(probe: Probe, row: npt.NDArray[np.float32]) -> float:
    """Cosine between the probe's vector and a unit row (D,) that was computed here; NaN where the row is not finite."""
    return float(row @ np.array(probe.embedding, dtype=np.float32))
