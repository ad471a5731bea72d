"""Curves over photos and comparisons of bundles, against the ranker that users call and against enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import multinomial

from sar_infer.class_model.cross_validation import fit, reworded
from sar_infer.class_model.model import linear
from sar_infer.errors import InputError
from sar_infer.evaluation.compare import Candidate, Cost, encoder_hint, ranked, verdict
from sar_infer.evaluation.curve import Curve, Point, doubled, photo_curve, splits
from sar_infer.measures import Share, paired_difference

SCALE = 20.0


def clouds(classes: int = 5, photos: int = 6, seed: int = 0, noise: float = 0.3):
    generator = np.random.default_rng(seed)
    texts = generator.normal(size=(classes, 24))
    labels = np.repeat(np.arange(classes), photos)
    rows = texts[labels] * 0.2 + generator.normal(size=(len(labels), 24)) * noise + generator.normal(size=24)
    return *(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, texts)), labels


def test_a_photo_is_classified_as_by_a_model_that_has_never_seen_it() -> None:
    rows, texts, labels = clouds()
    curve = photo_curve(rows, labels, texts, SCALE, seed=3)
    whole = fit(rows, labels, texts, SCALE, seed=3)
    right = np.zeros((4, len(labels)), np.bool_)
    right[0] = (rows @ texts.T).argmax(1) == labels
    tested = []
    for learned, test in splits(labels, 6, np.random.default_rng(3)):
        for point, most in ((1, 1), (2, 2), (3, 4), (4, 99))[:3]:
            some = np.concatenate([[n for n in learned if labels[n] == c][:most] for c in range(5)])
            model = reworded(whole.model, rows[some], labels[some], texts)
            means = np.array([rows[[n for n in some if labels[n] == c]].mean(0) for c in range(5)])
            weights, bias = linear(model, texts, means, np.bincount(labels[some]))
            right[point, test] = (rows[test] @ weights.T + bias)[:, :5].argmax(1) == labels[test]
        assert not {*learned} & {*test}
        tested += [*test]
    assert sorted(tested) == [*range(len(labels))]
    assert [point.photos for point in curve.points] == [0, 1, 2, 4, 6]
    np.testing.assert_array_equal(curve.right[:4], right)
    assert [point.accuracy.count for point in curve.points] == curve.right.sum(1).tolist()
    assert curve.auroc == whole.auroc
    assert 0.5 < curve.accuracy.share < 1  # else the rest shows nothing


def test_a_class_of_one_photo_is_known_by_its_name_while_that_is_tested() -> None:
    rows, texts, labels = clouds(noise=0.05)
    keep = np.flatnonzero((labels > 0) | (np.arange(len(labels)) == 0))
    assert photo_curve(rows[keep], labels[keep], texts, SCALE).right.shape == (5, 25)
    with pytest.raises(InputError, match="two photos of most"):
        photo_curve(rows[::6], labels[::6], texts, SCALE)
    nameless = photo_curve(rows, labels, texts, SCALE, named=np.zeros(5, np.bool_))
    assert [point.photos for point in nameless.points] == [1, 2, 4, 6]


def test_held_out_photos_are_classified_by_the_others_alone() -> None:
    rows, texts, labels = clouds(photos=12)
    held_out = np.arange(len(labels)) % 12 >= 8
    curve = photo_curve(rows, labels, texts, SCALE, held_out=held_out)
    learned, own = rows[~held_out], labels[~held_out]
    model = fit(learned, own, texts, SCALE).model
    means = np.array([learned[own == c].mean(0) for c in range(5)])
    weights, bias = linear(model, texts, means, np.bincount(own))
    right = (rows[held_out] @ weights.T + bias)[:, :5].argmax(1) == labels[held_out]
    np.testing.assert_array_equal(curve.right[-1], right)
    assert (curve.accuracy.count, curve.accuracy.of, curve.learned) == (right.sum(), 20, 8)
    assert [point.photos for point in curve.points] == [0, 1, 2, 4, 8]


@pytest.mark.parametrize(("start", "slope"), [(-1.0, 0.35), (0.5, 0.5), (2.0, 0.1), (0.0, 0.0)])
def test_the_estimate_for_twice_as_many_photos_lies_on_the_curve_that_there_is(start: float, slope: float) -> None:
    def share(photos: int) -> float:
        return 1 / (1 + math.exp(-start - slope * math.log2(photos)))

    generator = np.random.default_rng(0)
    errors, inside = [], 0
    for _ in range(200):
        counts = [(n, int(generator.binomial(400, share(n)))) for n in (1, 2, 4, 8, 16)]
        points = [Point(0, Share.of_count(9, 400)), *(Point(n, Share.of_count(count, 400)) for n, count in counts)]
        twice = doubled(points, 16.0)
        errors.append(twice.accuracy.share - share(32))
        inside += twice.accuracy.low <= share(32) <= twice.accuracy.high
    assert twice.photos == 32
    assert abs(np.mean(errors)) < 0.02
    assert inside > 190


@pytest.mark.parametrize("cells", [(0.1, 0.1), (0.02, 0.05), (0.2, 0.05), (0.0, 0.01)])
def test_the_interval_of_a_difference_covers_the_true_one(cells: tuple[float, float]) -> None:
    count, covered = 60, 0.0
    for more, fewer in itertools.product(range(count + 1), repeat=2):
        if (
            more + fewer <= count
            and (chance := multinomial.pmf([more, fewer, count - more - fewer], count, [*cells, 1 - sum(cells)])) > 1e-9
        ):
            first = np.arange(count) < more
            second = np.arange(count) >= count - fewer
            found = paired_difference(first, second)
            assert found.share == pytest.approx((more - fewer) / count)
            covered += chance * (found.low <= cells[0] - cells[1] <= found.high)
    assert 0.94 < covered <= 1


def test_as_many_photos_as_it_says_would_tell_two_apart() -> None:
    first, second = np.arange(100) < 60, np.arange(100) >= 46  # 46 and 40 alone
    enough = paired_difference(first, second).enough
    assert enough is not None and enough > 100
    times = math.ceil(enough / 100)
    assert paired_difference(first, second).level
    assert not paired_difference(np.tile(first, times), np.tile(second, times)).level
    assert paired_difference(first, first).enough is None


def candidate(name: str, right: np.ndarray, milliseconds: float) -> Candidate:
    share = Share.of_flags(right)
    assert share is not None
    curve = Curve((Point(4, share),), 3, 3.5, Point(8, share), None, right[None])
    return Candidate(name, {}, curve, Cost(9, milliseconds, None, 1))


def test_the_best_is_named_and_what_is_level_and_cheaper() -> None:
    numbers = np.arange(100)
    good, quick, bad = numbers < 80, (numbers < 79) | (numbers == 90), numbers % 2 == 0
    order = ranked(
        [candidate("bad", bad, 1), candidate("quick", quick, 4), candidate("good", good | (numbers == 95), 8)]
    )
    assert [one.name for one in order] == ["good", "quick", "bad"]
    lines = [*verdict(order)]
    assert lines[1].startswith("quick is level with good and takes 50% of its time: -1.0 points")
    assert lines[0].startswith("take quick")
    assert lines[2].startswith("good with 8 photos of each class: about 81%")
    assert len(lines) == 3
    alone = [*verdict(ranked([candidate("bad", bad, 1), candidate("good", good, 9)]))]
    assert alone[0] == "good is best: the others are below it by more than chance explains"


def test_other_encoders_are_mentioned_where_the_one_for_trials_is_not_enough() -> None:
    line = encoder_hint("sar-mini", 0.6, "my photos")
    assert line is not None and line.endswith(": sar-bundle compare sar-mini BUNDLE --photos 'my photos'")
    assert encoder_hint("sar-mini", 0.95) is None
    assert encoder_hint("ViT-B-16", 0.6) is None
