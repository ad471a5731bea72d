"""Learning from photos without labels, against EM by loops and by what must hold for any stream."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sar_infer.classifiers.learning import CAUTIOUS, PLAIN, Caution, KnownClasses, judge, learn, shared_shift
from sar_infer.classifiers.statistics import Statistics

SCALE, SIZE = 20.0, 8


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def problem(seed: int = 0, trained: int = 3, added: int = 2) -> tuple[Statistics, KnownClasses, np.ndarray]:
    """Statistics of some trained classes, all classes with the added ones by name, and prototypes of all."""
    rng = np.random.default_rng(seed)
    prototypes = unit(rng.normal(size=(trained + added, SIZE)))
    text = unit(prototypes + 0.2 * rng.normal(size=prototypes.shape))
    factor = rng.normal(size=(SIZE, SIZE)) / 4
    means = prototypes[:trained] * np.float32(0.9)
    precision = (factor @ factor.T + 30 * np.eye(SIZE)).astype(np.float32)
    statistics = Statistics(
        (precision + precision.T) / 2,
        means.mean(0),
        text[:trained].mean(0),
        slope=0.5,
        alpha=0.5,
        prior=2.0,
        offsets=((0, 0.0), (1, -0.5), (16, 1.0)),
        curve=(),
        means=means,
        counts=np.full(trained, 10),
    )
    counts = np.array([10.0] * trained + [0.0] * added)
    all_means = np.concatenate([means, np.zeros((added, SIZE), np.float32)])
    known_classes = KnownClasses(text, all_means, counts, np.zeros(trained + added, np.bool_))
    return statistics, known_classes, prototypes


def stream(
    prototypes: np.ndarray, classes: list[int], each: int = 12, noise: float = 0.15, seed: int = 5
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(np.repeat(prototypes[classes], each, 0) + noise * rng.normal(size=(len(classes) * each, SIZE)))


def em_by_loops(
    statistics: Statistics, known_classes: KnownClasses, photos: np.ndarray, rounds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plain EM, photo by photo and class by class, from the formulas alone."""
    precision = statistics.precision.astype(np.float64)
    knots = [(np.log2(1 + n), g) for n, g in statistics.offsets]
    classes = len(known_classes.rows)
    sums, counts, move = np.zeros((classes, SIZE)), np.zeros(classes), np.zeros(SIZE)
    for _ in range(rounds):
        means, offsets = [], []
        for c in range(classes):
            named = statistics.centre + statistics.slope * (
                known_classes.rows[c].astype(float) - statistics.text_centre
            )
            total = known_classes.counts[c] * known_classes.means[c].astype(float) + sums[c] + counts[c] * move
            number = known_classes.counts[c] + counts[c]
            means.append((total + statistics.prior * named) / (number + statistics.prior))
            offsets.append(np.interp(np.log2(1 + number), *zip(*knots, strict=True)) if number else 0.0)
        sums, counts, residual = np.zeros((classes, SIZE)), np.zeros(classes), np.zeros(SIZE)
        for photo in photos.astype(float):
            z = photo + move - statistics.centre
            logits = []
            for c in range(classes):
                d = means[c] - statistics.centre
                image = z @ precision @ d - d @ precision @ d / 2
                logits.append(SCALE * (photo + move) @ known_classes.rows[c] + statistics.alpha * image - offsets[c])
            powers = np.exp(np.array(logits) - max(logits))
            for c, share in enumerate(powers / powers.sum()):
                sums[c] += share * photo
                counts[c] += share
                residual += share * (photo - means[c])
        move = -residual / (len(photos) + 10)
    return sums, counts, move


def test_plain_em_is_that_of_loops() -> None:
    statistics, known_classes, prototypes = problem()
    photos = stream(prototypes, [0, 1, 2, 3, 4])
    learning = learn(statistics, SCALE, known_classes, photos, caution=dataclasses.replace(PLAIN, rounds=4))
    sums, counts, move = em_by_loops(statistics, known_classes, photos, 4)
    np.testing.assert_allclose(learning.counts, counts, atol=1e-3)
    np.testing.assert_allclose(learning.sums, sums, atol=1e-3)
    np.testing.assert_allclose(learning.translation, move, atol=1e-4)
    assert learning.counts.sum() == pytest.approx(len(photos), rel=1e-5)


@pytest.mark.parametrize("all_known", [True, False])
def test_pieces_do_not_matter(all_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics, known_classes, prototypes = problem()
    photos = stream(prototypes, [0, 1, 2, 3, 4])
    whole = learn(statistics, SCALE, known_classes, photos, all_known=all_known)
    chunk_sizes: list[int] = []
    monkeypatch.setattr("sar_infer.classifiers.learning._CELLS", 7 * SIZE)
    pieces = learn(statistics, SCALE, known_classes, photos, all_known=all_known, told=chunk_sizes.append)
    np.testing.assert_allclose(pieces.sums, whole.sums, atol=1e-3)
    np.testing.assert_allclose(pieces.counts, whole.counts, atol=1e-3)
    assert max(chunk_sizes) == 7
    assert sum(chunk_sizes) % len(photos) == 0


def test_no_photo_and_no_trusted_photo_teach_nothing() -> None:
    statistics, known_classes, prototypes = problem()
    for photos, caution in (
        (np.empty((0, SIZE), np.float32), PLAIN),
        (stream(prototypes, [0, 1]), dataclasses.replace(CAUTIOUS, sure=1.1)),
    ):
        learning = learn(statistics, SCALE, known_classes, photos, caution=caution)
        assert not learning.counts.any()
        assert not learning.sums.any()
        assert not learning.translation.any()


def test_unlabelled_photos_count_as_little_as_they_are_told_to() -> None:
    statistics, known_classes, prototypes = problem()
    photos = stream(prototypes, [0, 1, 2, 3, 4], each=40)
    learning = learn(statistics, SCALE, known_classes, photos, caution=Caution(most=3.0, share=0.5))
    assert learning.counts.max() <= 5 + 1e-9  # half of ten
    assert (learning.counts[3:] <= 3 + 1e-9).all()


def test_strangers_move_less_than_photos_of_the_classes() -> None:
    statistics, known_classes, prototypes = problem()
    strangers = unit(-prototypes.sum(0) + 0.3 * np.random.default_rng(1).normal(size=(60, SIZE)))
    plain = learn(statistics, SCALE, known_classes, strangers, all_known=True)
    cautious = learn(statistics, SCALE, known_classes, strangers)
    assert cautious.counts.sum() < 0.2 * plain.counts.sum()
    assert plain.translation.any()
    assert not cautious.translation.any()


def test_a_common_shift_is_told_from_classes() -> None:
    statistics, known_classes, prototypes = problem(trained=4, added=2)
    rng = np.random.default_rng(3)
    means = np.concatenate([statistics.means, known_classes.rows[4:]]).astype(np.float64)
    same = stream(prototypes, [0, 1, 2, 3, 4, 5], each=30)
    apart = 0.6 * unit(np.linalg.svd(means - statistics.centre)[2][-1] + 0.01 * rng.normal(size=SIZE))
    assert shared_shift(statistics, means, same) < 0.3
    assert shared_shift(statistics, means, same + apart) > 0.6


def shifted_gains(classes: list[int], *, sideways: float = 0.05, all_known: bool = False) -> np.ndarray:
    """Return what streams of some classes, seen by other cameras, add to accuracy (in per cent) on their photos.

    A camera moves rows across the span of class means, and by ``sideways`` in all directions.
    """
    gains = []
    for seed in range(6):
        statistics, known_classes, prototypes = problem(seed, trained=4, added=2)
        means = np.concatenate([statistics.means, known_classes.rows[4:]]).astype(np.float64)
        camera = sideways * np.random.default_rng(seed).normal(size=SIZE)
        camera += 0.8 * np.linalg.svd(means - statistics.centre)[2][-1]
        photos = (stream(prototypes, classes, 200, 0.1, seed) + camera).astype(np.float32)
        unseen = (stream(prototypes, list(range(6)), 30, 0.1, seed + 1) + camera).astype(np.float32)
        learning = learn(statistics, SCALE, known_classes, photos, all_known=all_known)
        judged, truth = judge(statistics, SCALE, known_classes, learning, unseen), np.repeat(np.arange(6), 30)
        gains.append(100 * ((judged.after == truth).mean() - (judged.before == truth).mean()))
    return np.array(gains)


@pytest.mark.parametrize("classes", [[0], [5], [4, 5]])
def test_a_partial_stream_of_another_camera_costs_little(classes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert shifted_gains(classes).min() > -1
    assert shifted_gains(classes, all_known=True).min() < -3
    monkeypatch.setattr("sar_infer.classifiers.learning.COVERED", (-1.0, 0.0))
    assert shifted_gains(classes).min() < -3  # the same translation without that guard


def test_a_whole_stream_of_another_camera_helps() -> None:
    assert shifted_gains(list(range(6)), sideways=0.2).mean() > 4


def test_a_stream_of_another_camera_teaches_no_means() -> None:
    statistics, known_classes, prototypes = problem(trained=4, added=2)
    means = np.concatenate([statistics.means, known_classes.rows[4:]]).astype(np.float64)
    camera = 1.2 * np.linalg.svd(means - statistics.centre)[2][-1]
    photos = (stream(prototypes, list(range(6)), 30) + camera).astype(np.float32)
    learning = learn(statistics, SCALE, known_classes, photos)
    assert learning.translation @ camera < -0.5
    assert not learning.counts.any()
    assert not judge(statistics, SCALE, known_classes, learning, photos).counted.any()


def test_judged_photos_say_what_changes() -> None:
    statistics, known_classes, prototypes = problem()
    photos = stream(prototypes, [0, 1, 2, 3, 4], noise=0.3)
    learning = learn(statistics, SCALE, known_classes, photos, all_known=True)
    judged = judge(statistics, SCALE, known_classes, learning, photos)
    truth = np.repeat(np.arange(5), 12)
    assert (judged.after == truth).mean() >= (judged.before == truth).mean()
    assert ((judged.scores > 0.2 - 1e-6) & (judged.scores <= 1 + 1e-6)).all()
    nothing = dataclasses.replace(
        learning, sums=0 * learning.sums, counts=0 * learning.counts, translation=0 * learning.translation
    )
    unchanged = judge(statistics, SCALE, known_classes, nothing, photos)
    assert (unchanged.before == unchanged.after).all()
