"""Photos in the wrong folder, against a refit without each photo, and on garments."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.photos import SHARED, needs_shared

from sar_infer import Classifier
from sar_infer.class_model.labels import label_issues
from sar_infer.class_model.model import ClassModel, Rivals, gaussian

RNG = np.random.default_rng(0)


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def around(centres: Any, labels: Any, spread: float = 0.6) -> Any:
    return unit(centres[labels] + RNG.normal(size=(len(labels), centres.shape[1])) * spread / centres.shape[1] ** 0.5)


def refitted(rows: Any, labels: Any, others: Rivals | None = None) -> Any:
    """Return probabilities, flags and nearest other classes (N,): three rounds, each photo left out by hand."""
    classes, size, right = labels.max() + 1, rows.shape[1], np.ones(len(rows))
    photos, prior = np.bincount(labels), 3.0
    counted = np.zeros(classes) if others is None else others.counts
    pooled = np.zeros((classes, size)) if others is None else others.means
    photos = np.r_[photos, np.zeros(len(counted) - classes)] + counted
    for _ in range(3):
        weights, after, near, nearer = np.maximum(right, 0.02), [], [], []

        def mean(chosen: Any, c: int, weights: Any = weights) -> Any:
            return ((weights[chosen, None] * rows[chosen]).sum(0) + counted[c] * pooled[c]) / count(chosen, c, weights)

        def count(chosen: Any, c: int, weights: Any = weights) -> Any:
            return weights[chosen].sum() + counted[c]

        centre = np.mean([mean(np.flatnonzero(labels == c), c) for c in range(len(counted))], axis=0)
        for i in range(len(rows)):
            rest = np.delete(np.arange(len(rows)), i)
            groups = [rest[labels[rest] == c] for c in range(len(counted))]
            means, counts = ([f(g, c) for c, g in enumerate(groups)] for f in (mean, count))
            pairs = [*zip(groups, means, strict=True)]
            scatter = sum(weights[j] * np.outer(rows[j] - m, rows[j] - m) for g, m in pairs for j in g)
            total, freedom = weights[rest].sum(), weights[rest].sum() - classes
            if others is not None:
                scatter += sum(n * np.outer(p - m, p - m) for n, p, m in zip(counted, pooled, means, strict=True))
                before, n = np.linalg.inv(others.model.precision.astype(float)), others.model.photos
                shared = ((n - 1 + 3 * size) * before - 3 * np.trace(before) * np.eye(size)) / (n - 1)
                scatter = scatter + (n - (counted > 0).sum()) * shared
                total, freedom = total + n, total + n - len(counted)
            covariance = scatter / freedom
            precision = np.linalg.inv((total - 1) * covariance + np.trace(covariance) * np.eye(size))
            squares = []
            for m, number in zip(means, counts, strict=True):
                apart = rows[i] - centre - number * (m - centre) / (number + prior)
                squares.append(apart @ precision @ apart / (1 + 1 / (number + prior)))
            own, squares[labels[i]] = squares[labels[i]], np.inf
            near.append(int(np.argmin(squares)))
            nearer.append(min(squares) < own)
            odds = -1.5 + 14.2 * np.log(own / min(squares)) - 3.8 / np.sqrt(photos[labels[i]])
            after.append(1 / (1 + np.exp(odds)))
        right = np.array(after)
    return right, np.array(nearer), np.array(near)


@pytest.mark.parametrize("with_others", [False, True])
def test_it_is_the_refit_without_each_photo(with_others: bool) -> None:
    centres = unit(RNG.normal(size=(5, 12)))
    labels = np.repeat(np.arange(4), (9, 4, 8, 7))
    rows = around(centres, labels)
    labels[[0, 10, 20]] = (2, 0, 1)
    others = None
    if with_others:  # two more classes, and older photos of the first one
        older = np.repeat(np.arange(6), (5, 0, 0, 0, 10, 10))
        seen, present = np.unique(older, return_inverse=True)
        pool = around(unit(RNG.normal(size=(6, 12))), older)
        fitted = gaussian(pool, present, np.eye(3, 12), np.ones(3, np.bool_))
        precision = fitted.precision.astype(np.float32)
        model = dataclasses.replace(ClassModel.unfitted(12, 20.0), level=0.0, factor=precision, photos=float(len(pool)))
        means = np.array([pool[older == c].mean(0) if c in seen else np.zeros(12) for c in range(6)])
        others = Rivals(means, means, np.bincount(older).astype(float), model)
    issues = label_issues(rows, labels, others=others)
    right, nearer, near = refitted(rows, labels, others)
    np.testing.assert_allclose(issues.probability, right, rtol=1e-5, atol=1e-9)
    assert issues.suggested.tolist() == near.tolist()
    assert issues.nearer.tolist() == nearer.tolist()
    assert issues.doubtful.tolist() == [i for i in np.argsort(right) if nearer[i] and right[i] < 0.4]


def test_photos_in_another_folder_are_in_doubt_and_no_others() -> None:
    centres = unit(RNG.normal(size=(6, 64)))
    truth = np.repeat(np.arange(6), 12)
    rows, labels = around(centres, truth), truth.copy()
    moved = np.arange(0, 72, 9)
    labels[moved] = (truth[moved] + 1) % 6
    issues = label_issues(rows.astype(np.float32), labels)
    assert {*issues.doubtful.tolist()} == {*moved.tolist()}
    assert issues.suggested[moved].tolist() == truth[moved].tolist()
    assert (np.diff(issues.probability[issues.doubtful]) >= 0).all()
    assert not len(label_issues(rows, truth).doubtful)


def test_too_few_photos_or_classes_put_nothing_in_doubt() -> None:
    centres = unit(RNG.normal(size=(3, 32)))
    rows = around(centres, np.array([0] * 8 + [1] * 8 + [2, 2, 0]))
    assert not len(label_issues(rows, np.array([0] * 8 + [1] * 8 + [2] * 3)).doubtful)
    for count in (0, 1, 5):
        alone = label_issues(rows[:count], np.zeros(count, np.intp))
        assert (alone.probability.tolist(), alone.doubtful.tolist()) == ([1.0] * count, [])
    same = label_issues(np.repeat(rows[:1], 10, axis=0), np.repeat([0, 1], 5))
    assert np.isfinite(same.probability).all()
    assert not len(same.doubtful)
    assert np.isfinite(label_issues(rows[:3], np.arange(3)).probability).all()


@needs_shared
@pytest.mark.slow
def test_on_garments_planted_photos_are_found_and_few_others() -> None:
    classifier = Classifier.open(threads=1)
    folders = sorted(path for path in (SHARED / "clothes" / "train").iterdir() if path.is_dir())[:6]
    rows = np.concatenate([classifier.embed_images(sorted(folder.iterdir())[:12]) for folder in folders])
    right, hits, false = np.repeat(np.arange(6), 12), 0, 0
    for start in range(6):
        labels, moved = right.copy(), np.arange(start, 72, 12)
        labels[moved] = (right[moved] + 2) % 6
        doubtful = label_issues(rows, labels).doubtful
        hits += len({*doubtful.tolist()} & {*moved.tolist()})
        false += len({*doubtful.tolist()} - {*moved.tolist()})
    assert hits >= 20  # of 36
    assert false <= 8  # of 396
