"""Datasets of images, opened as training opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sar_train.data.images import DataOptions, ImageDataset
from sar_train.data.open_images import open_images


def opened(spec: Path | str, shots: int, seed: int, *, whole: bool = False, **options: Any) -> ImageDataset:
    return open_images(str(spec), DataOptions(shots=shots, seed=seed, **options), whole=whole)
