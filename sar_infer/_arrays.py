"""Types of arrays that several rooms exchange."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
"""Pixels, embeddings and scores."""
Indices = npt.NDArray[np.intp]
"""Places along an axis of another array."""
