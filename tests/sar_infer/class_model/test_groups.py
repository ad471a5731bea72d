"""Groups and labels on points whose classes are known, beside the same computed by loops."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import multivariate_normal
from support.trained import example_model

from sar_infer.class_model.groups import Answers, Group, suggest, worth_a_label
from sar_infer.class_model.model import ClassModel
from sar_infer.errors import InputError

DIM = 16


def statistics(**changes: object) -> ClassModel:
    """Statistics whose P stretches some directions more than others; classes lie far apart under it."""
    model = ClassModel.unfitted(DIM, 20.0, np.full(DIM, 0.1, np.float32))
    changes = {"level": 0.0, "factor": 4 * example_model(DIM).precision, "prior": 2.0} | changes
    return dataclasses.replace(model, **changes)


def photos_of(means: npt.NDArray[np.float64], count: int, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (N, D) around means (C, D), and their labels."""
    labels = np.repeat(np.arange(len(means)), count)
    rows = means[labels] + spread * np.random.default_rng(3).normal(size=(len(labels), means.shape[1]))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def directions(count: int) -> npt.NDArray[np.float64]:
    return np.eye(DIM)[:count]


def answers(rows: np.ndarray, means: np.ndarray, counts: list[int] | None = None) -> Answers:
    """Answers by the cosine with the means (K, D) of classes with 16 photos each, unless told otherwise."""
    scores = np.exp(10 * rows @ means.T)
    scores /= scores.sum(axis=1, keepdims=True)
    best = np.argsort(-scores, axis=1)[:, :3]
    photos = np.full(len(means), 16) if counts is None else np.array(counts)
    return Answers(best, np.take_along_axis(scores, best, axis=1).astype(np.float32), means, photos)


def leaders(groups: list[Group], labels: np.ndarray) -> set[int]:
    return {int(np.bincount(labels[group.photos]).argmax()) for group in groups}


def test_classes_that_the_bank_lacks_are_groups_and_its_own_are_recognised() -> None:
    means = directions(7)
    rows, labels = photos_of(means, 20)
    groups = suggest(statistics(), rows, answers(rows, means[:4])).groups
    assert sorted(np.concatenate([group.photos for group in groups]).tolist()) == list(range(140))  # each in one
    new, recognised = [g for g in groups if g.like is None], [g for g in groups if g.like is not None]
    assert leaders(new, labels) == {4, 5, 6}
    assert {label for group in new for label in labels[group.photos]} == {4, 5, 6}
    assert all(set(labels[group.photos]) == {group.like} for group in recognised)
    assert leaders(recognised, labels) == {0, 1, 2, 3}
    assert len(groups) == 21  # four classes have four sevenths of the photos: seven classes, three groups each
    assert list(groups) == [
        *sorted(new, key=lambda g: -len(g.photos)),
        *sorted(recognised, key=lambda g: -len(g.photos)),
    ]


def test_the_most_typical_photo_comes_first_and_nearest_classes_have_mean_scores() -> None:
    means = directions(5)
    rows, _ = photos_of(means, 12)
    model, answered = statistics(), answers(rows, means[:3])
    group = suggest(model, rows, answered).groups[0]
    centre = rows[group.photos].astype(np.float64).mean(axis=0)
    p = model.precision.astype(np.float64)
    distances = [float((rows[row] - centre) @ p @ (rows[row] - centre)) for row in group.photos]
    assert distances == sorted(distances)
    expected = {
        k: float(np.mean([answered.scores[row][answered.classes[row] == k].sum() for row in group.photos]))
        for k in range(3)
    }
    assert dict(group.nearest) == pytest.approx(expected)
    assert [score for _, score in group.nearest] == sorted(dict(group.nearest).values(), reverse=True)


def test_distances_are_those_under_the_precision_matrix() -> None:
    """Two classes that differ in a direction which P stretches, and a larger difference that it hardly counts."""
    p = np.eye(DIM)
    p[0, 0], p[1, 1] = 10_000, 0.01
    model = statistics(factor=p.astype(np.float32))
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], 10)
    rows = 0.02 * rng.normal(size=(20, DIM))
    rows[:, 0] = np.where(labels == 0, -0.1, 0.1)
    rows[:, 1] = 0.5 * rng.choice([-1, 1], 20)
    rows[:, 2] = 0.8
    groups = suggest(model, rows.astype(np.float32), answers(rows, directions(1))).groups
    assert all(len(set(labels[group.photos])) == 1 for group in groups)


def test_a_group_looks_like_the_class_of_the_largest_density() -> None:
    """Among classes with few photos and none, and a class that the bank lacks; groups of several sizes."""
    model, rng = statistics(broad=0.5), np.random.default_rng(2)
    means = 0.4 * rng.normal(size=(6, DIM))
    rows = rng.normal(size=(60, DIM)) * 0.2 + np.repeat(means, 10, axis=0)
    answered = answers(rows, means[:4], [16, 1, 0, 3])
    covariance = np.linalg.inv(model.precision.astype(np.float64))
    liked = set()
    for group in suggest(model, rows.astype(np.float32), answered).groups:
        mean, count = rows[group.photos].mean(0), len(group.photos)
        densities = [
            multivariate_normal(answered.means[k], covariance * (1 / (answered.counts[k] + model.prior) + 1 / count))
            for k in range(4)
        ]
        densities.append(multivariate_normal(model.centre, covariance * (1 / model.broad + 1 / count)))
        best = int(np.argmax([density.logpdf(mean) for density in densities]))
        assert group.like == (best if best < 4 else None)
        liked.add(group.like)
    assert len(liked) > 2


def test_without_a_class_model_a_name_is_recognised_by_its_score_alone() -> None:
    rows, labels = photos_of(directions(4), 20)
    best = np.where(labels[:, None] < 2, np.array([[0, 1]]), np.array([[1, 0]]))
    scores = np.where(labels[:, None] == 0, [[0.9, 0.1]], [[0.3, 0.2]]).astype(np.float32)
    groups = suggest(None, rows, Answers(best, scores, np.zeros((2, DIM)), np.zeros(2, np.int64))).groups
    assert {label for group in groups if group.like == 0 for label in labels[group.photos]} == {0}
    assert {label for group in groups if group.like is None for label in labels[group.photos]} == {1, 2, 3}


def test_more_photos_than_are_clustered_join_the_nearest_group() -> None:
    means = directions(5)
    rows, labels = photos_of(means, 1000)
    groups = suggest(statistics(), rows, answers(rows, means[:3])).groups
    assert sum(len(group.photos) for group in groups) == 5000
    assert all(len(set(labels[group.photos])) == 1 for group in groups)
    assert leaders([group for group in groups if group.like is None], labels) == {3, 4}


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_photos(count: int) -> None:
    rows, _ = photos_of(directions(3), 1)
    suggestions = suggest(statistics(), rows[:count], answers(rows[:count], directions(2)))
    assert sorted(row for group in suggestions.groups for row in group.photos.tolist()) == list(range(count))
    assert sorted(suggestions.labels.tolist()) == list(range(count))


def test_scipy_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    rows, _ = photos_of(directions(3), 5)
    with pytest.raises(InputError, match=r"pip install '.\[suggest\]'"):
        suggest(statistics(), rows, answers(rows, directions(2)))


# --------------------------------------------------------------------------------------------------------------- labels
def by_loops(points: np.ndarray, scores: np.ndarray, count: int) -> list[int]:
    """The greedy choice, photo by photo."""
    number = len(points)
    doubts = [1 - (row[0] - row[1]) for row in scores.astype(np.float64)]
    squares = [[float(((points[i] - points[j]) ** 2).sum()) for j in range(number)] for i in range(number)]
    reach = float(np.quantile(np.array(squares), 0.2))
    near = [[max(0.0, 1 - squares[i][j] / reach) for j in range(number)] for i in range(number)]
    chosen: list[int] = []
    for _ in range(count):
        covered = [max((near[i][j] for i in chosen), default=0.0) for j in range(number)]
        gains = [
            -1.0 if i in chosen else sum(doubts[j] * max(0.0, near[i][j] - covered[j]) for j in range(number))
            for i in range(number)
        ]
        chosen.append(int(np.argmax(gains)))
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_labels_are_those_that_loops_choose(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(40, 5))
    scores = -np.sort(-rng.dirichlet([0.5] * 4, size=40), axis=1)[:, :3]
    assert worth_a_label(points, scores.astype(np.float32), 8).tolist() == by_loops(points, scores, 8)


def test_no_photo_is_chosen_twice_and_all_can_be() -> None:
    points = np.zeros((5, 3))  # all the same
    assert sorted(worth_a_label(points, np.full((5, 1), 0.5, np.float32), 9).tolist()) == list(range(5))
