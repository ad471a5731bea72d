"""Datasets of photos, opened as training opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sar_train.data.dataset import DataOptions, Dataset
from sar_train.data.opening import open_dataset


def opened(spec: Path | str, shots: int = 16, seed: int = 1, **options: Any) -> Dataset:
    return open_dataset(str(spec), DataOptions(shots=shots, seed=seed, **options))


def counts(dataset: Dataset) -> list[tuple[int, ...]]:
    """How many photos of each class train, validate and test."""
    labels = [[photo.label for photo in dataset.photos(split)] for split in ("train", "val", "test")]
    return [tuple(of_split.count(label) for of_split in labels) for label in range(len(dataset.class_names))]
