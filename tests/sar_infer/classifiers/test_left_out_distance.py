"""The distance that leaving classes out finds: known images lie nearer, strangers beyond."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sar_infer.classifiers.confidence import Confidence
from sar_infer.classifiers.fitting import fit
from sar_infer.classifiers.statistics import class_means, mahalanobis
from sar_infer.errors import BankError

DIM, CLASSES, PHOTOS = 24, 12, 16


def photos(means: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng, labels = np.random.default_rng(seed), np.repeat(np.arange(len(means)), count)
    rows = means[labels] + 0.12 * rng.normal(size=(len(labels), DIM))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def test_most_known_images_lie_within_it_and_most_strangers_beyond() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(2 * CLASSES, DIM))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    names = means + 0.2 * rng.normal(size=means.shape)
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    rows, labels = photos(means[:CLASSES], PHOTOS, 1)
    statistics = fit(rows, labels, names[:CLASSES], 20.0).statistics
    assert statistics.confidence is not None
    learned = class_means(
        statistics, names[:CLASSES].astype(np.float32), statistics.means[:CLASSES], statistics.counts[:CLASSES]
    )

    def nearest(images: np.ndarray) -> np.ndarray:
        each = [mahalanobis(statistics, (images - mean).astype(np.float32)) ** 2 for mean in learned]
        return np.min(each, axis=0)

    known, _ = photos(means[:CLASSES], 40, 2)
    strange, _ = photos(means[CLASSES:], 40, 3)
    limit = statistics.confidence.distance
    assert (nearest(known) <= limit).mean() > 0.9
    assert (nearest(strange) > limit).mean() > 0.5
    assert statistics.text_confidence is None or statistics.text_confidence.distance == math.inf
    again = type(statistics).from_tensors(statistics.tensors())
    assert again.confidence == statistics.confidence


@pytest.mark.parametrize("distance", [-1.0, math.nan])
def test_a_distance_is_a_number_of_0_or_more(distance: float) -> None:
    with pytest.raises(BankError, match="expected a distance of 0 or more"):
        Confidence(1.5, 0.2, -3.0, 2.0, ((0, (0.3, 0.2, 0.1)),), distance)
