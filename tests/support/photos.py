"""Folders of small generated photos, and the real ones of ``../shared/data`` where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the photos and split files of ../shared/data")


def write_photo(path: Path, seed: int = 0, size: tuple[int, int] = (48, 40)) -> Path:
    """A photo of smooth noise, different for every seed; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def write_folder(root: Path, counts: dict[str, int]) -> Path:
    """``root/CLASS/NUMBER.png`` with so many photos for each class."""
    for i, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_photo(root / name / f"{number:02d}.png", seed=1000 * i + number)
    return root
