from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from sar_infer.classifiers import statistics as room
from sar_infer.classifiers.statistics import Statistics
from sar_infer.errors import BankError

SIZE, SCALE = 24, 20.0
COUNTS = np.array([0, 1, 16, 3, 0, 40])


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def features(count: int, seed: int) -> np.ndarray:
    """Unit rows that share a large common part, as image and text features do."""
    return unit(np.random.default_rng(seed).normal(size=(count, SIZE)) * 0.15 + 0.9)


def example(**changes) -> Statistics:
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(SIZE, SIZE))
    precision = (factor @ factor.T * 20 + np.eye(SIZE) * 5).astype(np.float32)
    given = {
        "precision": (precision + precision.T) / 2,
        "centre": features(40, 2).mean(0),
        "text_centre": features(40, 3).mean(0),
        "slope": 0.7,
        "alpha": 0.4,
        "prior": 2.0,
        "offsets": ((0, 0.0), (1, 2.0), (4, 3.0), (16, 5.0)),
        "curve": ((-1.0, 80.0, 20.0), (0.0, 75.0, 40.0)),
        "means": features(3, 4),
        "counts": np.array([16, 16, 9]),
    }
    return Statistics(**{**given, **changes})


def brute_logits(stats: Statistics, x, text, photos, counts, photos_only, shift=0.0) -> np.ndarray:
    """The design's formula as it stands, class by class and image by image, in float64 and without centring."""
    p, centre, text_centre = (np.float64(v) for v in (stats.precision, stats.centre, stats.text_centre))
    found = np.empty((len(x), len(text)))
    for c in range(len(text)):
        t = text_centre if photos_only[c] else np.float64(text[c])
        predicted = centre + stats.slope * (t - text_centre)
        n = int(counts[c])
        m = predicted if n == 0 else (n * np.float64(photos[c]) + stats.prior * predicted) / (n + stats.prior)
        known = [(math.log2(1 + k), g) for k, g in stats.offsets]
        place = math.log2(1 + n)
        g = known[-1][1]
        for (x0, g0), (x1, g1) in itertools.pairwise(known):
            if x0 <= place <= x1:
                g = g0 + (g1 - g0) * (place - x0) / (x1 - x0)
        g = g + shift if n else 0.0
        for i in range(len(x)):
            row = np.float64(x[i])
            found[i, c] = SCALE * row @ t + stats.alpha * (row @ p @ m - m @ p @ m / 2) - g
    return found


def test_composed_logits_are_the_formula_up_to_one_constant_an_image() -> None:
    stats, x, text, photos = example(), features(9, 5), features(6, 6), features(6, 7)
    photos_only = np.array([False, True, False, False, True, False])
    for shift in (0.0, 1.5):
        weights, bias = room.composed(stats, SCALE, text, photos, COUNTS, photos_only, shift)
        assert weights.dtype == bias.dtype == np.float32
        found = (x - stats.centre) @ weights.T + bias
        expected = brute_logits(stats, x, text, photos, COUNTS, photos_only, shift)
        constant = expected - found
        np.testing.assert_allclose(constant, constant[:, :1].repeat(6, axis=1), atol=1e-6 * np.abs(expected).max())


def test_photos_of_a_class_without_any_are_ignored() -> None:
    stats, text = example(), features(6, 6)
    photos = features(6, 7)
    garbage = photos.copy()
    garbage[COUNTS == 0] = np.nan
    for clean, dirty in zip(
        room.composed(stats, SCALE, text, photos, COUNTS),
        room.composed(stats, SCALE, text, garbage, COUNTS),
        strict=True,
    ):
        np.testing.assert_array_equal(clean, dirty)


def test_a_zero_alpha_is_the_text_branch_minus_the_offset() -> None:
    stats, x, text = example(alpha=0.0), features(5, 8), features(6, 9)
    weights, bias = room.composed(stats, SCALE, text, features(6, 7), COUNTS)
    expected = SCALE * np.float64(x) @ np.float64(text).T - stats.offset(COUNTS)
    np.testing.assert_allclose((x - stats.centre) @ weights.T + bias, expected, rtol=1e-6)


def test_rows_of_a_large_bank_do_not_depend_on_their_neighbours() -> None:
    stats, many = example(), 20_000
    text, photos = features(many, 10), features(many, 11)
    counts = np.random.default_rng(0).integers(0, 20, many)
    weights, bias = room.composed(stats, SCALE, text, photos, counts)
    some = [0, 8191, 8192, 19_999]
    few, few_bias = room.composed(stats, SCALE, text[some], photos[some], counts[some])
    np.testing.assert_allclose(weights[some], few, rtol=1e-6)
    np.testing.assert_allclose(bias[some], few_bias, rtol=1e-6)


def test_queries_rank_names_without_a_second_matrix() -> None:
    stats, x, text = example(), features(7, 12), features(50, 13)
    none = np.zeros(50, dtype=np.int64)
    weights, bias = room.composed(stats, SCALE, text, np.zeros_like(text), none)
    queries, constants = room.transformed_queries(stats, SCALE, x)
    found = queries @ text.T + constants[:, None] + room.named_bias(stats, text)
    np.testing.assert_allclose(found, (x - stats.centre) @ weights.T + bias, rtol=2e-6)


def test_means_move_from_the_name_to_the_photos() -> None:
    stats, text, photos = example(), features(3, 14), features(3, 15)
    predicted = stats.centre + 0.7 * (np.float64(text) - stats.text_centre)
    np.testing.assert_allclose(room.predicted_means(stats, text), predicted, rtol=1e-6)
    found = room.class_means(stats, text, photos, [0, 2, 10**9])
    np.testing.assert_allclose(found[0], predicted[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], (predicted[1] + photos[1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(found[2], photos[2], rtol=1e-6)
    photos_only = np.array([True, False, False])
    np.testing.assert_allclose(room.predicted_means(stats, text, photos_only)[0], stats.centre, rtol=1e-6)


def test_offsets_between_and_beyond_the_fitted_ones() -> None:
    stats = example()
    assert stats.offset([0, 1, 4, 16, 1000]).tolist() == [0, 2, 3, 5, 5]
    between = (math.log2(3) - 1) / (math.log2(5) - 1)
    assert stats.offset(2) == pytest.approx(2 + between)
    assert stats.offset([0, 1], shift=-1.5).tolist() == [0, 0.5]


def test_confusion_is_the_error_of_two_gaussians() -> None:
    stats = example(precision=np.eye(SIZE, dtype=np.float32) * 4)
    means = np.zeros((3, SIZE))
    means[1, 0], means[2, 0] = 0.5, 2.0  # at distances of 1 and 4 standard deviations from the first
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=400_000) / 2
    found = room.confusion(stats, means, means)
    assert found[0, 0] == 0.5
    assert found[0, 1] == pytest.approx((drawn > 0.25).mean(), abs=0.003)
    assert found[0, 2] == pytest.approx((drawn > 1).mean(), abs=0.003)
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_allclose(room.confusion(stats, means[:1], means[1:]), found[:1, 1:])
    assert room.confusion(stats, means[:0], means).shape == (0, 3)
    wider = dataclasses.replace(stats, separation=0.25)
    assert room.confusion(wider, means, means)[0, 2] == pytest.approx(found[0, 1])


def test_distances_are_mahalanobis() -> None:
    stats, rows = example(), features(5, 16)
    for one, found in zip(np.float64(rows), room.mahalanobis(stats, rows), strict=True):
        assert found == pytest.approx(math.sqrt(one @ np.float64(stats.precision) @ one), rel=1e-6)
    assert room.mahalanobis(stats, rows[:1] - rows[:1]).tolist() == [0]


def test_the_default_ranks_names_by_text_alone_and_photos_as_prototypes() -> None:
    x, text, photos = features(6, 17), features(6, 18), features(6, 19)
    stats = Statistics.default(SIZE, centre=features(40, 2).mean(0))
    none = np.zeros(6, dtype=np.int64)
    weights, bias = room.composed(stats, SCALE, text, photos, none)
    np.testing.assert_allclose((x - stats.centre) @ weights.T + bias, SCALE * np.float64(x) @ text.T, rtol=1e-6)
    everywhere = np.ones(6, dtype=np.bool_)
    weights, bias = room.composed(stats, SCALE, text, photos, none + 4, everywhere)
    nearest = ((np.float64(x)[:, None] - (photos * 4.0 + stats.centre * 2.0) / 6) ** 2).sum(-1).argmin(1)
    assert ((x - stats.centre) @ weights.T + bias).argmax(1).tolist() == nearest.tolist()


def test_the_default_leaves_images_to_classes_without_photos_though_all_images_have_something_in_common() -> None:
    images = np.eye(SIZE, dtype=np.float32)[:2] * np.sqrt(0.6)
    images[:, -1] = np.sqrt(0.4)  # the cosine of two images of different classes is 0.4
    text = np.eye(SIZE, dtype=np.float32)[:2] * 0.2
    text[:, -2] = np.sqrt(1 - 0.2**2)
    stats, photos = Statistics.default(SIZE), np.array([0, 2])
    weights, bias = room.composed(stats, 20.0, text, images, photos)
    assert ((images - stats.centre) @ weights.T + bias).argmax(1).tolist() == [0, 1]


def test_tensors_bring_back_the_same_statistics() -> None:
    for stats in (example(), Statistics.default(SIZE)):
        again = Statistics.from_tensors(stats.tensors())
        for field in dataclasses.fields(Statistics):
            old, new = getattr(stats, field.name), getattr(again, field.name)
            assert np.array_equal(old, new) and type(old) is type(new)
        assert not again.precision.flags.writeable
    with pytest.raises(BankError):
        Statistics.from_tensors({name: value for name, value in example().tensors().items() if name != "alpha"})
    with pytest.raises(BankError):
        Statistics.from_tensors({**example().tensors(), "offsets": np.zeros(3)})
    with pytest.raises(BankError):
        Statistics.from_tensors({**example().tensors(), "prior": np.ones(2)})


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": np.zeros(3, dtype=np.int64)},
        {"means": np.zeros((0, SIZE), dtype=np.float32), "counts": np.zeros(0, dtype=np.int64)},
        {"alpha": 0.0, "slope": -1.0, "prior": 1e-3, "separation": 1e-3},
        {"offsets": ((0, 0.0),), "curve": ()},
        {"offsets": ((0, 0.0), (1, -5.0)), "curve": ((-1.0, 0.0, 100.0), (-1.0, 100.0, 0.0))},
    ],
)
def test_statistics_at_the_limits_are_sound(changes: dict) -> None:
    found = example(**changes)
    assert all(np.array_equal(getattr(found, name), value) for name, value in changes.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": np.full((SIZE, SIZE), np.nan, dtype=np.float32)},
        {"precision": -np.eye(SIZE, dtype=np.float32)},
        {"precision": np.zeros((SIZE, SIZE), dtype=np.float32)},
        {"precision": np.triu(np.ones((SIZE, SIZE), dtype=np.float32))},
        {"precision": np.eye(SIZE)},
        {"precision": np.eye(SIZE + 1, dtype=np.float32)},
        {"centre": np.full(SIZE, np.inf, dtype=np.float32)},
        {"text_centre": np.zeros((1, SIZE), dtype=np.float32)},
        {"means": np.zeros((2, SIZE), dtype=np.float32)},
        {"precision": np.eye(SIZE, dtype=np.float32) * np.float32(3e38)},
        {"centre": np.full(SIZE, 3e38, dtype=np.float32)},
        {"text_centre": np.full(SIZE, 2, dtype=np.float32)},
        {"means": np.full((3, SIZE), 2, dtype=np.float32)},
        {"alpha": 1e300},
        {"slope": -1e38},
        {"offsets": ((0, 0.0), (1, 1e300))},
        {"counts": np.array([1, -1, 2])},
        {"counts": np.array([1.0, 1.0, 2.0])},
        {"alpha": -0.1},
        {"alpha": math.nan},
        {"prior": 0.0},
        {"separation": 0.0},
        {"slope": math.inf},
        {"offsets": ()},
        {"offsets": ((0, 1.0),)},
        {"offsets": ((1, 0.0),)},
        {"offsets": ((0, 0.0), (4, 1.0), (2, 1.0))},
        {"offsets": ((0, 0.0), (4, math.nan))},
        {"curve": ((0.0, math.nan, 1.0),)},
        {"curve": ((1.0, 50.0, 1.0), (0.0, 50.0, 1.0))},
    ],
)
def test_unsound_statistics_are_refused_in_one_line(changes: dict) -> None:
    with pytest.raises(BankError) as caught:
        example(**changes)
    assert str(caught.value).startswith("statistics: ") and "\n" not in str(caught.value)
