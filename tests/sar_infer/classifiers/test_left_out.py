"""Class statistics and the choice of their numbers, on made-up features of which the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from support.unit import unit

from sar_infer.classifiers import left_out
from sar_infer.classifiers.gaussian import TRACE, assemble, gaussian, separation, slope
from sar_infer.classifiers.left_out import Prompt, choose, fittable, folds_of, halves
from sar_infer.classifiers.statistics import composed, confusion

SIZE, SCALE = 32, 20.0


@dataclass
class World:
    """Classes with a direction each; text rows follow it as closely as ``names`` says, photos as ``spread`` says."""

    classes: int
    names: float = 0.5
    spread: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.truth = rng.normal(size=(self.classes, SIZE)) * 0.12
        self.common = np.ones(SIZE) * 0.8
        other = rng.normal(size=(self.classes, SIZE)) * 0.12
        self.rows = unit(self.common + self.names * self.truth + (1 - self.names) * other)
        self.noise = np.diag(np.linspace(0.3, 1.5, SIZE)) * self.spread

    def photos(self, counts, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, 1, D) features and labels."""
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(self.classes), counts)
        noise = rng.normal(size=(len(labels), SIZE)) @ self.noise
        return unit(self.common + self.truth[labels] + noise)[:, None], labels


@pytest.mark.parametrize(("classes", "shots"), [(2, 2), (10, 16)])
def test_the_precision_is_the_papers_at_one_trace(classes: int, shots: int) -> None:
    features, labels = World(classes).photos(shots)
    rows = features[:, 0]
    result = gaussian(rows, labels, classes)
    scatter = np.zeros((SIZE, SIZE))
    for c in range(classes):
        for row in rows[labels == c]:
            apart = row - rows[labels == c].mean(0)
            scatter += np.outer(apart, apart)
    scatter /= classes * shots - classes
    paper = SIZE * np.linalg.inv((len(rows) - 1) * scatter + np.trace(scatter) * np.eye(SIZE))
    np.testing.assert_allclose(result.precision / result.precision[0, 0], paper / paper[0, 0], atol=1e-9)
    assert np.trace(result.precision @ scatter) == pytest.approx(TRACE)
    np.testing.assert_allclose(result.centre, np.stack([rows[labels == c].mean(0) for c in range(classes)]).mean(0))


def test_photos_without_scatter_take_the_reference_or_the_identity() -> None:
    features, labels = World(5).photos(1)
    same = np.repeat(features[:, 0], 4, axis=0)
    for rows, of in ((features[:, 0], labels), (same, np.repeat(labels, 4))):
        plain = gaussian(rows, of, 5)
        assert plain.scatter is None
        around = ((rows - rows.mean(0)) ** 2).sum(1).mean() / 2
        np.testing.assert_allclose(plain.precision, np.eye(SIZE) * TRACE / around)
        trained = np.diag(np.linspace(1, 2, SIZE))
        shaped = gaussian(rows, of, 5, trained)
        assert np.trace(shaped.precision @ trained) == pytest.approx(TRACE)
        assert shaped.precision[0, 0] > shaped.precision[-1, -1]
    one = gaussian(features[:1, 0], labels[:1], 1)
    np.testing.assert_array_equal(one.precision, np.eye(SIZE) * TRACE / 0.5)


def test_the_slope_is_least_squares() -> None:
    world = World(40, names=1.0, spread=0.0)
    features, labels = world.photos(2)
    model = gaussian(features[:, 0], labels, 40)
    named, observed = world.rows - world.rows.mean(0), model.means - model.centre
    expected = np.linalg.lstsq(named.reshape(-1, 1), observed.reshape(-1), rcond=None)[0]
    assert slope(model, world.rows) == pytest.approx(expected[0])
    assert slope(model, world.rows[:1].repeat(40, axis=0)) == 0


@pytest.mark.parametrize("retrained", [False, True])
@pytest.mark.parametrize("classes", [4, 7, 50, 1000])
def test_classes_are_left_out_in_turn(classes: int, retrained: bool) -> None:
    folds = folds_of(classes, retrained=retrained, seed=3)
    for fold in folds:
        assert not set(fold.kept) & set(fold.left)
        assert len(fold.left) and len(fold.kept) >= 2
        assert len(fold.left) <= len(fold.kept)
        if retrained:
            assert set(fold.kept) == set(halves(classes, 3)[fold.half])
        else:
            assert abs(len(fold.left) - classes / 3) < 1
    if classes <= 50:
        times = np.bincount(np.concatenate([fold.left for fold in folds]), minlength=classes)
        assert times.min() == times.max() == max(2, -(-48 // classes))
    else:
        assert len(folds) == 1


def test_the_accuracy_that_is_expected_by_name_holds_among_as_many_added_classes_as_trained_ones() -> None:
    result, by_choice, in_folds = [], [], []
    for seed in range(4):
        world, trained = World(24, names=0.35, spread=0.22, seed=seed), 12
        features, labels = world.photos(16)
        ours = labels < trained
        choice = choose(features[ours], labels[ours], [Prompt("handcrafted", world.rows[:trained])], SCALE, seed=seed)
        model = gaussian(features[ours, 0], labels[ours], trained)
        statistics = assemble(model, world.rows[:trained], alpha=choice.alpha, offsets=choice.offsets)
        fresh, truth = world.photos(50, seed=5)
        means = np.concatenate([model.means, np.zeros((12, SIZE))])
        weights, bias = composed(statistics, SCALE, world.rows.astype(np.float32), means, [*[16] * 12, *[0] * 12])
        right = ((fresh[:, 0] - statistics.centre) @ weights.T + bias).argmax(1) == truth
        result.append(100 * right[truth >= trained].mean())
        by_choice.append(choice.expected[0].accuracy)
        in_folds.append(next(left for shift, _, left in choice.curve if shift == 0))
    assert np.mean(by_choice) == pytest.approx(np.mean(result), abs=7)
    assert np.mean(in_folds) > np.mean(result) + 10


@pytest.mark.parametrize(("classes", "shots"), [(4, 2), (6, 3), (6, 16), (50, 4), (50, 16), (1000, 2)])
def test_every_regime_gives_sound_statistics(classes: int, shots: int) -> None:
    world = World(classes)
    features, labels = world.photos(shots)
    assert fittable(labels, classes) is None
    choice = choose(features, labels, [Prompt("handcrafted", world.rows)], SCALE)
    model = gaussian(features[:, 0], labels, classes)
    statistics = assemble(model, world.rows, alpha=choice.alpha, offsets=choice.offsets, curve=choice.curve)
    assert statistics.offsets[-1][0] == shots
    assert [item.photos for item in choice.expected] == [n for n in (0, 1, 2, 4, 8) if n < shots]
    for item in choice.expected:
        assert 0 <= item.low <= item.accuracy <= item.high <= 100
    assert any(shift == 0 for shift, _, _ in statistics.curve)


@pytest.mark.parametrize(
    ("counts", "sound"), [([4, 4, 4], False), ([1] * 6, False), ([2, 2, 2, 1, 1, 1], False), ([2, 2, 2, 2, 1, 1], True)]
)
def test_too_few_photos_are_refused(counts: list[int], sound: bool) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    assert (fittable(labels, len(counts)) is None) == sound


def test_with_an_alpha_of_zero_text_ranks_names_and_photos_that_are_added_count() -> None:
    world, trained = World(9, names=0.2, spread=0.1), 6
    features, labels = world.photos(16)
    ours = labels < trained
    model = left_out.text_alone(gaussian(features[ours, 0], labels[ours], trained))
    result = assemble(
        model, world.rows[:trained], alpha=left_out.PHOTO_ALPHA, b=0.0, offsets=[(0, 0.0), (4, -2.0), (16, 3.0)]
    )
    rows, truth = features[:, 0], np.array(labels)
    means = np.concatenate([model.means, [rows[labels == c][:4].mean(0) for c in range(trained, 9)]])

    def logits(photos: int) -> np.ndarray:
        counts = np.array([*model.counts, *[photos] * 3])
        weights, bias = composed(result, SCALE, world.rows.astype(np.float32), means, counts)
        return (rows - result.centre) @ weights.T + bias

    text = SCALE * rows @ world.rows.T - np.array([3.0] * trained + [0.0] * 3)
    apart = logits(0) - text  # one constant for each image is free
    np.testing.assert_allclose(apart - apart[:, :1], 0, atol=1e-4)
    fresh = ~ours & (np.tile(np.arange(16), 9) >= 4)
    by_name, by_photos = (float((logits(n).argmax(1) == truth)[fresh].mean()) for n in (0, 4))
    assert by_photos > by_name + 0.2


def test_separation_turns_distances_into_standard_deviations() -> None:
    world = World(12, spread=0.25)
    features, labels = world.photos(60)
    model = gaussian(features[:, 0], labels, 12)
    factor = separation(features[:, 0], labels, 12)
    result = assemble(model, world.rows, alpha=1.0, separation=factor)
    fresh, of = world.photos(400, seed=11)
    expected = confusion(result, model.means, model.means)
    errors = []
    for i in range(12):
        for j in range(12):
            if i != j:
                apart = model.means[i] - model.means[j]
                middle = (model.means[i] + model.means[j]) / 2
                wrong = ((fresh[of == i, 0] - middle) @ model.precision @ apart < 0).mean()
                errors.append((expected[i, j], wrong))
    predicted, observed = np.array(errors).T
    assert predicted.mean() == pytest.approx(observed.mean(), rel=0.25)


def test_the_separation_of_many_photos_is_known_in_closed_form() -> None:
    """Their P is the inverse of their covariance S but for a factor, which ``tr(P S) = TRACE`` makes TRACE / D."""
    features, labels = World(12, spread=0.25).photos(400)
    assert separation(features[:, 0], labels, 12) == pytest.approx(np.sqrt(SIZE / TRACE), rel=0.03)


def test_photos_that_make_means_are_not_those_that_say_how_far_they_lie_apart() -> None:
    """Means of noise differ, and half of the photos say nothing about the other half."""
    noise, labels = np.random.default_rng(0).normal(size=(240, SIZE)), np.repeat(np.arange(40), 6)
    assert separation(unit(noise), labels, 40) % 1 < 0.07  # 1 stands for none


def test_classes_of_less_than_four_photos_tell_nothing_of_separation() -> None:
    features, labels = World(5).photos([6, 6, 4, 4, 3])
    rows = features[:, 0]
    with_all, trained = separation(rows, labels, 5), labels < 4
    assert (
        with_all == separation(rows[trained], labels[trained], 4) != separation(rows[labels < 3], labels[labels < 3], 3)
    )
    assert separation(rows[labels < 2], labels[labels < 2], 2) not in (1.0, with_all)
    assert separation(rows[labels < 1], labels[labels < 1], 1) == 1.0
