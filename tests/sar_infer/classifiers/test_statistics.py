from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.trained import by_hand

from sar_infer.classifiers import statistics as room
from sar_infer.classifiers.statistics import Statistics
from sar_infer.classifiers.trained_statistics import ClassPhotos
from sar_infer.errors import BankError

SIZE, SCALE = 24, 20.0
NONE = np.zeros((6, SIZE), np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def features(count: int, seed: int) -> np.ndarray:
    """Unit rows that share a large common part, as image and text features do."""
    return unit(np.random.default_rng(seed).normal(size=(count, SIZE)) * 0.15 + 0.9)


def example(**changes) -> Statistics:
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(SIZE, SIZE))
    precision = (factor @ factor.T * 20 + np.eye(SIZE) * 5).astype(np.float32)
    fields = {
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
    return Statistics(**{**fields, **changes})


def logits(stats: Statistics, x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - stats.centre) @ weights.T + bias


# ------------------------------------------------------------------------------------------------------------- formulas
@settings(max_examples=examples(60))
@given(
    counts=st.lists(st.sampled_from([0, 0, 1, 2, 3, 5, 16, 40, 1000]), min_size=6, max_size=6),
    photos_only=st.lists(st.booleans(), min_size=6, max_size=6),
    alpha=st.sampled_from([0.0, 0.1, 0.4, 2.0]),
    slope=st.sampled_from([-0.5, 0.0, 0.7]),
    prior=st.sampled_from([0.5, 2.0]),
    shift=st.sampled_from([0.0, 1.5, -3.0]),
    seed=st.integers(0, 100),
)
def test_composed_logits_are_the_formula_up_to_one_constant_an_image(
    counts: list[int], photos_only: list[bool], alpha: float, slope: float, prior: float, shift: float, seed: int
) -> None:
    stats = example(alpha=alpha, slope=slope, prior=prior)
    x, text, photos = features(9, seed), features(6, seed + 1), features(6, seed + 2)
    photos[np.array(counts) == 0] = np.nan  # nobody may look at them
    weights, bias = room.composed(stats, SCALE, text, photos, counts, np.array(photos_only), shift)
    assert weights.dtype == bias.dtype == np.float32
    classes = {
        column: ClassPhotos(photos[column] if count else NONE[0], count, only)
        for column, (count, only) in enumerate(zip(counts, photos_only, strict=True))
        if count or only
    }
    expected = by_hand(stats, SCALE, x, text, classes, shift)
    constant = expected - logits(stats, x, weights, bias)
    np.testing.assert_allclose(constant, constant[:, :1].repeat(6, axis=1), atol=1e-6 * np.abs(expected).max())


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
    weights, bias = room.composed(stats, SCALE, text, np.zeros_like(text), np.zeros(50, dtype=np.int64))
    queries, constants = room.transformed_queries(stats, SCALE, x)
    by_query = queries @ text.T + constants[:, None] + room.named_bias(stats, text)
    np.testing.assert_allclose(by_query, logits(stats, x, weights, bias), rtol=2e-6)


def test_means_move_from_the_name_to_the_photos() -> None:
    stats, text, photos = example(), features(3, 14), features(3, 15)
    predicted = stats.centre + 0.7 * (np.float64(text) - stats.text_centre)
    np.testing.assert_allclose(room.predicted_means(stats, text), predicted, rtol=1e-6)
    means = room.class_means(stats, text, photos, [0, 2, 10**9])
    np.testing.assert_allclose(means[0], predicted[0], rtol=1e-6)
    np.testing.assert_allclose(means[1], (predicted[1] + photos[1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(means[2], photos[2], rtol=1e-6)


def test_confusion_is_the_error_of_two_gaussians() -> None:
    stats = example(precision=np.eye(SIZE, dtype=np.float32) * 4)
    means = np.zeros((3, SIZE))
    means[1, 0], means[2, 0] = 0.5, 2.0  # at distances of 1 and 4 standard deviations from the first
    drawn = np.random.default_rng(0).normal(size=400_000) / 2
    errors = room.confusion(stats, means, means)
    assert errors[0, 0] == 0.5
    assert errors[0, 1] == pytest.approx((drawn > 0.25).mean(), abs=0.003)
    assert errors[0, 2] == pytest.approx((drawn > 1).mean(), abs=0.003)
    np.testing.assert_allclose(errors, errors.T)
    np.testing.assert_allclose(room.confusion(stats, means[:1], means[1:]), errors[:1, 1:])
    assert room.confusion(stats, means[:0], means).shape == (0, 3)
    wider = dataclasses.replace(stats, separation=0.25)
    assert room.confusion(wider, means, means)[0, 2] == pytest.approx(errors[0, 1])


def test_distances_are_mahalanobis() -> None:
    stats, rows = example(), features(5, 16)
    for one, distance in zip(np.float64(rows), room.mahalanobis(stats, rows), strict=True):
        assert distance == pytest.approx(math.sqrt(one @ np.float64(stats.precision) @ one), rel=1e-6)
    assert room.mahalanobis(stats, rows[:1] - rows[:1]).tolist() == [0]


def test_the_default_ranks_names_by_text_alone_and_photos_as_prototypes() -> None:
    x, text, photos = features(6, 17), features(6, 18), features(6, 19)
    stats, counts = Statistics.default(SIZE, centre=features(40, 2).mean(0)), np.zeros(6, dtype=np.int64)
    by_name = room.composed(stats, SCALE, text, photos, counts)
    np.testing.assert_allclose(logits(stats, x, *by_name), SCALE * np.float64(x) @ text.T, rtol=1e-6)
    by_photos = room.composed(stats, SCALE, text, photos, counts + 4, np.ones(6, dtype=np.bool_))
    nearest = ((np.float64(x)[:, None] - (photos * 4.0 + stats.centre * 2.0) / 6) ** 2).sum(-1).argmin(1)
    assert logits(stats, x, *by_photos).argmax(1).tolist() == nearest.tolist()


def test_the_default_leaves_images_to_classes_without_photos_though_all_images_have_something_in_common() -> None:
    images = np.eye(SIZE, dtype=np.float32)[:2] * np.sqrt(0.6)
    images[:, -1] = np.sqrt(0.4)  # the cosine of two images of different classes is 0.4
    text = np.eye(SIZE, dtype=np.float32)[:2] * 0.2
    text[:, -2] = np.sqrt(1 - 0.2**2)
    stats = Statistics.default(SIZE)
    terms = room.composed(stats, 20.0, text, images, np.array([0, 2]))
    assert logits(stats, images, *terms).argmax(1).tolist() == [0, 1]


# --------------------------------------------------------------------------------------------------- tensors and checks
def test_tensors_bring_back_the_same_statistics() -> None:
    for stats in (example(), Statistics.default(SIZE)):
        again = Statistics.from_tensors(stats.tensors())
        for field in dataclasses.fields(Statistics):
            old, new = getattr(stats, field.name), getattr(again, field.name)
            assert np.array_equal(old, new) and type(old) is type(new)
        assert not again.precision.flags.writeable
    tensors = example().tensors()
    without_alpha = {name: value for name, value in tensors.items() if name != "alpha"}
    for wrong in (without_alpha, {**tensors, "offsets": np.zeros(3)}, {**tensors, "prior": np.ones(2)}):
        with pytest.raises(BankError):
            Statistics.from_tensors(wrong)


def filled(value: float, *shape: int) -> np.ndarray:
    return np.full(shape, value, dtype=np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": np.zeros(3, dtype=np.int64)},
        {"means": filled(0, 0, SIZE), "counts": np.zeros(0, dtype=np.int64)},
        {"alpha": 0.0, "slope": -1.0, "prior": 1e-3, "separation": 1e-3},
        {"offsets": ((0, 0.0),), "curve": ()},
        {"offsets": ((0, 0.0), (1, -5.0)), "curve": ((-1.0, 0.0, 100.0), (-1.0, 100.0, 0.0))},
    ],
)
def test_statistics_at_the_limits_are_sound(changes: dict) -> None:
    stats = example(**changes)
    assert all(np.array_equal(getattr(stats, name), value) for name, value in changes.items())


@pytest.mark.parametrize(
    "changes",
    [
        *({"precision": matrix} for matrix in (filled(np.nan, SIZE, SIZE), filled(0, SIZE, SIZE), np.eye(SIZE))),
        {"precision": -np.eye(SIZE, dtype=np.float32)},
        {"precision": np.triu(filled(1, SIZE, SIZE))},
        {"precision": np.eye(SIZE + 1, dtype=np.float32)},
        {"precision": np.eye(SIZE, dtype=np.float32) * np.float32(3e38)},
        *({"centre": filled(value, SIZE)} for value in (np.inf, 3e38)),
        *({"text_centre": array} for array in (filled(0, 1, SIZE), filled(2, SIZE))),
        *({"means": array} for array in (filled(0, 2, SIZE), filled(2, 3, SIZE))),
        *({"counts": np.array(counts)} for counts in ([1, -1, 2], [1.0, 1.0, 2.0])),
        *({"alpha": value} for value in (-0.1, math.nan, 1e300)),
        *({"slope": value} for value in (math.inf, -1e38)),
        *({name: 0.0} for name in ("prior", "separation")),
        *({"offsets": pairs} for pairs in ((), ((0, 1.0),), ((1, 0.0),), ((0, 0.0), (4, 1.0), (2, 1.0)))),
        *({"offsets": ((0, 0.0), (4, value))} for value in (math.nan, 1e300)),
        {"curve": ((0.0, math.nan, 1.0),)},
        {"curve": ((1.0, 50.0, 1.0), (0.0, 50.0, 1.0))},
    ],
)
def test_unsound_statistics_are_refused_in_one_line(changes: dict) -> None:
    with pytest.raises(BankError) as caught:
        example(**changes)
    assert str(caught.value).startswith("statistics: ") and "\n" not in str(caught.value)
