"""Class statistics as training might leave them, and the formula of the composed logits in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST

from sar_infer.bank import PhotoSet
from sar_infer.classifiers.statistics import Statistics
from sar_infer.classifiers.trained_statistics import ClassPhotos, TrainedStatistics
from sar_infer.encoders.encoders import unit_rows


def example_statistics(
    names: Sequence[str] = BANK_NAMES[:3], dim: int = DIM, seed: int = 1, **changes: Any
) -> TrainedStatistics:
    """Statistics whose answers differ from those of the text branch."""
    generator = np.random.default_rng(seed)
    factor = generator.normal(size=(dim, dim)) / np.sqrt(dim)
    precision = 20 * (factor @ factor.T + np.eye(dim))
    fields: dict[str, Any] = {
        "precision": ((precision + precision.T) / 2).astype(np.float32),
        "centre": (0.5 * generator.normal(size=dim) / np.sqrt(dim)).astype(np.float32),
        "text_centre": (0.5 * generator.normal(size=dim) / np.sqrt(dim)).astype(np.float32),
        "slope": 0.7,
        "alpha": 0.3,
        "prior": 2.0,
        "offsets": ((0, 0.0), (1, 0.5), (4, 1.0), (16, 2.0)),
        "curve": ((-1.0, 90.0, 20.0), (0.0, 80.0, 60.0), (1.0, 60.0, 70.0)),
        "means": np.stack([photo_mean(generator, dim) for _ in names]),
        "counts": np.arange(3, 3 + len(names)),
    }
    return TrainedStatistics(tuple(names), Statistics(**(fields | changes)), ENCODER_DIGEST)


def photo_mean(generator: np.random.Generator, dim: int = DIM) -> npt.NDArray[np.float32]:
    rows = generator.normal(size=(3, dim))
    result: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    return result.astype(np.float32)


def photos(seed: int = 5, count: int = 2, dim: int = DIM, photos_only: bool = False) -> ClassPhotos:
    return ClassPhotos(photo_mean(np.random.default_rng(seed), dim), count, photos_only)


def unit_rows_of(count: int, seed: int, dim: int = DIM) -> npt.NDArray[np.float32]:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32))


def photo_set_of(count: int, seed: int, *, photos_only: bool = False) -> PhotoSet:
    """Photos with other rows for every seed."""
    rows = unit_rows_of(count, seed)
    digests = np.array([np.frombuffer(hashlib.sha256(row.tobytes()).digest(), np.uint8) for row in rows], np.uint8)
    return PhotoSet.of(digests.reshape(-1, 32), rows, photos_only=photos_only)


def apart(logits: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the largest difference but for one constant for each image, relative to the largest logit."""
    differences = logits - expected
    differences = differences - differences.mean(axis=1, keepdims=True)
    return float(np.abs(differences).max() / max(np.abs(expected).max(), 1e-30))


def evidence(
    names: Sequence[str], trained: TrainedStatistics | None, *photos: Mapping[str, ClassPhotos]
) -> dict[int, ClassPhotos]:
    """Return the photos of each class by column: those of training, and others by name, joined."""
    text_row: dict[str, ClassPhotos] = {}
    if trained is not None:
        model = trained.statistics
        numbers = zip(trained.names, model.means, model.counts.tolist(), strict=True)
        text_row = {name: ClassPhotos(mean, count) for name, mean, count in numbers}
    by_column: dict[int, ClassPhotos] = {}
    for group in (text_row, *photos):
        for column in (column for column, name in enumerate(names) if name in group):
            one = group[names[column]]
            by_column[column] = by_column[column].joined(one) if column in by_column else one
    return by_column


def by_hand(
    model: Statistics,
    scale: float,
    rows: npt.NDArray[Any],
    text: npt.NDArray[Any],
    photos_by_column: Mapping[int, ClassPhotos],
    shift: float = 0.0,
) -> npt.NDArray[np.float64]:
    """Logits (N, C) by the formula of the design, class by class, in float64; one constant for each image is free."""
    columns = []
    x, centre, p = rows.astype(np.float64), model.centre.astype(np.float64), model.precision.astype(np.float64)
    for column, text_row in enumerate(text.astype(np.float64)):
        item = photos_by_column.get(column)
        row = model.text_centre.astype(np.float64) if item is not None and item.photos_only else text_row
        mean = centre + model.slope * (row - model.text_centre)
        offset = 0.0
        if item is not None:
            mean = (item.count * item.mean.astype(np.float64) + model.prior * mean) / (item.count + model.prior)
            places = [np.log2(1 + n) for n, _ in model.offsets]
            offset = float(np.interp(np.log2(1 + item.count), places, [g for _, g in model.offsets]))
            offset += shift if item.count else 0.0
        image = x @ p @ mean - mean @ p @ mean / 2
        columns.append(scale * (x @ row) + model.alpha * image - offset)
    return np.stack(columns, axis=1)
