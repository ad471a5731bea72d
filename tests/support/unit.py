"""Rows of length 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def unit(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return rows (…, D) divided by their lengths."""
    result: npt.NDArray[Any] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return result
