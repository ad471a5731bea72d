"""Datasets of images, opened as training opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sar_train.data.open_photos import open_photos
from sar_train.data.photos import DataOptions, PhotoDataset


def opened(spec: Path | str, shots: int, seed: int, *, whole: bool = False, **options: Any) -> PhotoDataset:
    return open_photos(str(spec), DataOptions(shots=shots, seed=seed, **options), whole=whole)
