"""A class model as training might leave it, and the formula of its scores in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST

from sar_infer.bank import PhotoSet
from sar_infer.class_model.model import ClassModel
from sar_infer.class_model.trained import TrainedClasses
from sar_infer.encoders.encoders import unit_rows


def example_model(dim: int = DIM, seed: int = 1, **changes: Any) -> ClassModel:
    """A class model whose answers differ from those of text alone."""
    generator = np.random.default_rng(seed)
    factor = generator.normal(size=(dim, dim)) / np.sqrt(dim)
    precision = 5 * (factor @ factor.T + np.eye(dim))
    fields: dict[str, Any] = {
        "level": 0.0,
        "factor": ((precision + precision.T) / 2).astype(np.float32),
        "centre": (0.5 * generator.normal(size=dim) / np.sqrt(dim)).astype(np.float32),
        "text_centre": (0.5 * generator.normal(size=dim) / np.sqrt(dim)).astype(np.float32),
        "slope": 0.7,
        "prior": 2.0,
        "broad": 1.5,
        "scale": 20.0,
        "photos": 12.0,
        "weights": np.array([0.3, 0.1, 0.4, 0.5]),
        "share": 0.5,
        "length": 1.4,
        "axes": generator.normal(size=(dim, min(dim - 1, 3))).astype(np.float16) / 4,
        "unknown": np.array([[0.0, 0.3]]),
        "sets": np.array([[0.0, 0.3, 0.2, 0.1], [4.0, 0.2, 0.1, 0.05]]),
        "expected": np.array([[0.0, 0.8, 0.6], [1.0, 0.85, 0.7]]),
        "rivals": 2.0,
    }
    return ClassModel(**(fields | changes))


def example_trained(
    names: Sequence[str] = BANK_NAMES[:3], dim: int = DIM, seed: int = 1, **changes: Any
) -> TrainedClasses:
    """That class model with trained classes."""
    generator = np.random.default_rng(seed + 1)
    means = np.stack([photo_mean(generator, dim) for _ in names])
    counts = np.arange(3, 3 + len(names))
    return TrainedClasses(tuple(names), example_model(dim, seed, **changes), means, counts, ENCODER_DIGEST)


def photo_mean(generator: np.random.Generator, dim: int = DIM) -> npt.NDArray[np.float32]:
    rows = generator.normal(size=(3, dim))
    result: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    return result.astype(np.float32)


def unit_rows_of(count: int, seed: int, dim: int = DIM) -> npt.NDArray[np.float32]:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32))


def photo_set_of(count: int, seed: int, *, photos_only: bool = False, dim: int = DIM) -> PhotoSet:
    """Photos with other rows for every seed."""
    rows = unit_rows_of(count, seed, dim)
    return PhotoSet.of([hashlib.sha256(row.tobytes()).digest() for row in rows], rows, photos_only=photos_only)


def known_of(
    names: Sequence[str], trained: TrainedClasses | None, *photos: Mapping[str, PhotoSet]
) -> dict[int, tuple[npt.NDArray[np.float64], float, bool]]:
    """Return sum and number of the photos of classes by column, and False if the name means nothing."""
    result: dict[int, tuple[npt.NDArray[np.float64], float, bool]] = {}
    groups: list[dict[str, tuple[npt.NDArray[np.float64], float, bool]]] = []
    if trained is not None:
        numbers = zip(trained.names, trained.means.astype(np.float64), trained.counts.tolist(), strict=True)
        groups.append({name: (mean * count, count, True) for name, mean, count in numbers})
    groups += [{name: (one.total, len(one), not one.photos_only) for name, one in some.items()} for some in photos]
    for group in groups:
        for column in (column for column, name in enumerate(names) if name in group):
            total, count, named = group[names[column]]
            before = result.get(column, (np.zeros_like(total), 0.0, True))
            result[column] = before[0] + total, before[1] + count, before[2] and named
    return result


def by_hand(
    model: ClassModel,
    rows: npt.NDArray[Any],
    text: npt.NDArray[Any],
    known: Mapping[int, tuple[npt.NDArray[np.float64], float, bool]],
    translation: npt.NDArray[Any] | float = 0.0,
) -> npt.NDArray[np.float64]:
    """Logits (N, C + 1), *unknown* last, by the formula, class by class; one constant for each image is free."""
    x = rows.astype(np.float64) + translation
    centre, p = model.centre.astype(np.float64), model.precision.astype(np.float64)
    first, second, third, fourth = model.weights
    size, middle = len(centre), model.text_centre.astype(np.float64)
    columns = []
    for column, named_row in enumerate(text.astype(np.float64)):
        total, count, named = known.get(column, (np.zeros(size), 0.0, True))
        row = named_row if named else middle
        mean = (total - count * centre + model.prior * model.slope * (row - middle)) / (count + model.prior)
        image = (x - centre) @ p @ mean - mean @ p @ mean / 2
        columns.append(first * image + second * size / (count + model.prior) / 2 + third * model.scale * (x @ row))
    z = rows + translation - centre
    distance = model.length * (z**2).sum(1) - ((z @ model.axes.astype(np.float64)) ** 2).sum(1)
    far = first * model.share / (1 + model.broad) * size * (distance - 1) / 2
    columns.append(second * size / model.broad / 2 + third * model.scale * (x @ middle) + fourth + far)
    return np.stack(columns, axis=1)


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def apart(logits: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the largest difference but for one constant for each image, relative to the largest logit."""
    differences = logits - expected
    differences = differences - differences.mean(axis=1, keepdims=True)
    return float(np.abs(differences).max() / max(np.abs(expected).max(), 1e-30))
