"""How far scores can be trusted: what is kept, and what leaving classes out says, against loops and scipy."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from support.unit import unit

from sar_infer.classifiers import left_out
from sar_infer.classifiers.confidence import Confidence
from sar_infer.classifiers.fitting import chosen, fit
from sar_infer.classifiers.gaussian import gaussian
from sar_infer.classifiers.left_out import FoldPhotos, Prompt, Rivals, choose, folds_of
from sar_infer.classifiers.left_out_confidence import fit_confidences
from sar_infer.classifiers.scores import COVERAGES
from sar_infer.classifiers.statistics import Statistics, class_means, composed, mahalanobis, model_digest
from sar_infer.errors import BankError

SIZE, SCALE = 24, 20.0
TABLE = ((0, (0.2, 0.1, 0.05)), (1, (0.3, 0.2, 0.1)), (16, (0.5, 0.4, 0.3)))
PLAIN = Confidence(2.0, score=0.4, energy=-3.0, others=9.0, conformal=TABLE)


def world(classes: int, shots: int, spread: float = 0.16, seed: int = 0, more: int = 0):
    """Return photos (N, D), labels, text rows, and further photos of all classes with their labels."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(classes, SIZE)) * 0.15
    rows = unit(0.8 + 0.5 * truth + 0.5 * rng.normal(size=(classes, SIZE)) * 0.15)

    def photos(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(classes), count)
        return unit(0.8 + truth[labels] + rng.normal(size=(len(labels), SIZE)) * spread), labels

    return *photos(shots), rows, *photos(more)


def test_thresholds_are_linear_in_the_logarithm_of_photos_and_stretch_with_the_classes() -> None:
    counts = [0, 1, 3, 16, 99] + [0] * 5  # 10 classes: 9 others, as when they were fitted
    at = np.interp(np.log2([1, 2, 4, 17, 100]), np.log2([1, 2, 17]), [0.1, 0.2, 0.4])
    least = PLAIN.least(0.9, counts)
    assert least is not None
    np.testing.assert_allclose(least[:5], at)
    assert PLAIN.least(0.85, counts) is None
    wider = PLAIN.least(0.9, [0] * 19)
    assert wider is not None
    # beside twice as many others, each of which takes as much, 1 / (1 + r) becomes 1 / (1 + 2 r)
    np.testing.assert_allclose(wider, 1 / (1 + 2 * (1 / 0.1 - 1)))
    assert PLAIN.thresholds(19) == {"score": pytest.approx(1 / (1 + 2 * 1.5)), "energy": -3.0}
    assert PLAIN.thresholds(3)["score"] == pytest.approx(0.4)


def test_everything_comes_back_from_its_tensors() -> None:
    for prefix in ("", "text_"):
        tensors = PLAIN.tensors(prefix)
        assert Confidence.from_tensors(tensors, prefix) == PLAIN
        assert Confidence.from_tensors({}, prefix) is None
    default = Statistics.default(4)
    trusted = dataclasses.replace(
        default, confidence=PLAIN, text_confidence=dataclasses.replace(PLAIN, temperature=1.0)
    )
    back = Statistics.from_tensors(trusted.tensors())
    assert (back.confidence, back.text_confidence) == (trusted.confidence, trusted.text_confidence)
    assert Statistics.from_tensors(default.tensors()).confidence is None
    assert model_digest(trusted, SCALE) == model_digest(default, SCALE)  # logits are the same


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.9},
        {"temperature": float("nan")},
        {"energy": float("inf")},
        {"score": 1.2},
        {"others": 0.0},
        {"conformal": ()},
        {"conformal": ((1, (0.1, 0.1, 0.1)),)},
        {"conformal": ((0, (0.1, 0.1)),)},
        {"conformal": ((0, (0.1, 0.1, -0.1)),)},
        {"distance": -1.0},
        {"distance": float("nan")},
    ],
)
def test_unsound_numbers_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BankError, match="confidence"):
        dataclasses.replace(PLAIN, **changes)


def test_tensors_of_another_shape_are_refused() -> None:
    tensors = PLAIN.tensors()
    for name, array in (
        ("confidence", np.zeros(3)),
        ("conformal", np.zeros((2, 3))),
        ("conformal", np.full((1, 4), np.nan)),
    ):
        with pytest.raises(BankError, match="confidence"):
            Confidence.from_tensors({**tensors, name: array})


def rankings(features, labels, rows, choice, seed):
    """Yield photos, logits, labels and flags of left-out classes of each fold, composed class by class."""
    rng = np.random.default_rng(seed + 2)
    most = max(2, 480 // len(rows))
    for fold in folds_of(len(rows), retrained=False, seed=seed):
        drawn = FoldPhotos.draw(fold, features[:, None], labels, rng, parts=8, most=most)
        assert drawn is not None
        remaining, left = fold.kept, fold.left
        centre = drawn.model.centre
        named, observed = rows[remaining] - rows[remaining].mean(0), drawn.model.means - centre
        slope = (named * observed).sum() / (named**2).sum()
        usual = choice.offsets[-1][1]
        for photos in (0, 1, 2, 4, 8):
            if 2 * sum(len(one) > photos for one in drawn.drawn) <= len(drawn.drawn):
                break
            means, offsets = [], []
            for number, c in enumerate([*remaining, *left]):
                predicted = centre + slope * (rows[c] - rows[remaining].mean(0))
                if number < len(remaining):
                    count, mean = drawn.model.counts[number], drawn.model.means[number]
                    offsets.append(usual)
                else:
                    first = drawn.drawn[number - len(remaining)][:photos]
                    count, mean = len(first), first.mean(0) if photos else predicted
                    offsets.append(dict(choice.offsets).get(count, usual) if count else 0.0)
                means.append((count * mean + 2 * predicted) / (count + 2))
            apart = np.array(means) - centre
            z, p = drawn.images - centre, drawn.model.precision
            logits = SCALE * drawn.images @ rows[[*remaining, *left]].T - offsets
            logits += choice.alpha * (z @ p @ apart.T - np.einsum("cd,de,ce->c", apart, p, apart) / 2)
            is_left = drawn.order >= 0
            truth = np.where(is_left, drawn.truth + len(remaining), drawn.truth)
            used = ~is_left | (drawn.order >= photos)
            yield photos, logits[used], truth[used], is_left[used]


def test_the_temperature_is_the_most_likely_under_its_prior() -> None:
    features, labels, rows, _, _ = world(9, 12, spread=0.2)
    choice = choose(features[:, None], labels, [Prompt("handcrafted", rows)], SCALE, alphas=(1.0,), seed=3)
    confidence = fit_confidences(features[:, None], labels, Prompt("handcrafted", rows), SCALE, choice, seed=3)[0]
    assert confidence is not None
    groups = list(rankings(features, labels, rows, choice, 3))

    def loss(log_t: float) -> float:
        total, weight = 0.0, 0.0
        for photos, logits, truth, is_left in groups:
            share = 4 if photos == 0 else 1  # by name half, by photos half
            nll = -log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(truth)), truth]
            total += share * (nll[is_left].mean() + nll[~is_left].mean())
            weight += share * 2
        return 4 * 9 * total / weight + (log_t - np.log(5)) ** 2 / (2 * 0.5**2)

    best = minimize_scalar(loss, bounds=(0, np.log(50)), method="bounded", options={"xatol": 1e-7})
    assert confidence.temperature == pytest.approx(np.exp(best.x), rel=1e-3)
    assert confidence.temperature > 1
    assert confidence.others == 8

    independent = 4 * 9
    for photos, least in confidence.conformal:
        own_scores = [
            softmax(logits / confidence.temperature, axis=1)[np.arange(len(truth)), truth][is_left == (photos < 12)]
            for n, logits, truth, is_left in groups
            if n == photos or photos == 12
        ]
        ordered = np.sort(np.concatenate(own_scores))
        for coverage, score in zip(COVERAGES, least, strict=True):
            share = np.ceil((independent + 1) * coverage) / independent
            assert score == pytest.approx(ordered[int((1 - share) * len(ordered) + 1e-9)], rel=1e-4)


def test_few_classes_leave_the_temperature_near_the_usual_one_and_widen_sets() -> None:
    """Four classes that are never confused say nothing: a likelihood alone would take the lowest temperature."""
    features, labels, rows, _, _ = world(4, 12, spread=0.02)
    choice = choose(features[:, None], labels, [Prompt("handcrafted", rows)], SCALE, alphas=(1.0,))
    confidence, text = fit_confidences(features[:, None], labels, Prompt("handcrafted", rows), SCALE, choice)
    assert confidence is not None
    assert confidence.temperature > 1.5
    assert all(least[2] == 0 for _, least in confidence.conformal)  # 16 photos cannot tell 95 %: every class is in
    assert text is not None
    assert text.temperature == 1.0  # never below


def test_scores_of_classes_added_later_are_right_as_often_as_they_say() -> None:
    """Of 24 classes half are trained; temperature and sets are checked on fresh photos of the other half too."""
    gaps, before, covered, sure = [], [], [], 400.0  # a logit scale with which text is far too sure
    for seed in range(3):
        features, labels, rows, fresh, truth = world(24, 16, spread=0.22, seed=seed, more=30)
        ours = labels < 12
        prompt = Prompt("handcrafted", rows[:12])
        choice = choose(features[ours, None], labels[ours], [prompt], sure, seed=seed)
        model = chosen(choice, gaussian(features[ours], labels[ours], 12), rows[:12], 1.0)
        trust = fit_confidences(features[ours, None], labels[ours], prompt, sure, choice, seed=seed)[0]
        assert trust is not None
        for photos in (0, 2):
            means = np.stack([features[labels == c][: max(photos, 1)].mean(0) for c in range(24)])
            means[:12] = model.means
            counts = np.array([16] * 12 + [photos] * 12)
            weights, bias = composed(model, sure, rows.astype(np.float32), means, counts)
            logits = (fresh - model.centre) @ weights.T + bias
            scores = softmax(logits / trust.temperature, axis=1)
            right = scores.argmax(1) == truth
            gaps.append(scores.max(1).mean() - right.mean())
            before.append(softmax(logits, axis=1).max(1).mean() - right.mean())
            least = trust.least(0.9, counts)
            assert least is not None
            own_scores = scores[np.arange(len(truth)), truth] >= least[truth]
            covered.append(own_scores[truth >= 12].mean())
    assert np.mean(before) > 0.15
    assert abs(np.mean(gaps)) < 0.08
    assert 0.84 < np.mean(covered) < 0.97


def test_most_images_of_the_classes_lie_within_the_distance_and_most_of_others_beyond() -> None:
    features, labels, rows, fresh, truth = world(24, 16, spread=0.08, more=40)
    ours = labels < 12
    statistics = fit(features[ours], labels[ours], rows[:12], SCALE).statistics
    assert statistics.confidence is not None
    means = class_means(statistics, rows[:12].astype(np.float32), statistics.means, statistics.counts)
    each = [mahalanobis(statistics, (fresh - mean).astype(np.float32)) ** 2 for mean in means]
    within = np.min(each, axis=0) <= statistics.confidence.distance
    assert within[truth < 12].mean() > 0.9
    assert within[truth >= 12].mean() < 0.5
    assert statistics.text_confidence is None or statistics.text_confidence.distance == math.inf
    again = type(statistics).from_tensors(statistics.tensors())
    assert again.confidence == statistics.confidence


def test_names_that_compete_take_part_in_every_ranking() -> None:
    features, labels, rows, _, _ = world(8, 10)
    rng = np.random.default_rng(9)
    names = unit(0.8 + rng.normal(size=(40, SIZE)) * 0.15)
    alone = fit(features, labels, rows, SCALE)
    beside = fit(features, labels, rows, SCALE, rivals=Rivals(named=names))
    copies = fit(features, labels, rows, SCALE, rivals=Rivals(named=rows[:0]))
    assert copies.choice == alone.choice
    assert beside.choice.expected[0].accuracy < alone.choice.expected[0].accuracy
    assert beside.statistics.confidence is not None
    assert beside.statistics.confidence.others == pytest.approx(7 + 40)
    np.testing.assert_array_equal(beside.statistics.precision, alone.statistics.precision)


def test_a_prompt_that_was_trained_again_is_ranked_with_its_rows_in_the_folds() -> None:
    features, labels, rows, _, _ = world(8, 10, spread=0.2)
    noise = unit(np.random.default_rng(4).normal(size=rows.shape))
    choice = choose(features[:, None], labels, [Prompt("learned", rows, (rows, rows))], SCALE, alphas=(0.25,))
    good, bad = (
        fit_confidences(features[:, None], labels, Prompt("learned", rows, (row, row)), SCALE, choice)[0]
        for row in (rows, noise)
    )
    assert good is not None
    assert bad is not None
    assert bad.temperature > good.temperature


def test_nothing_is_said_where_no_photo_is_left() -> None:
    features, labels, rows, _, _ = world(5, 2)
    choice = choose(features[:, None], labels, [Prompt("handcrafted", rows)], SCALE)
    first = np.arange(0, 10, 2)
    confidence = fit_confidences(features[first, None], labels[first], Prompt("handcrafted", rows), SCALE, choice)
    assert confidence == (None, None)


def test_every_part_of_a_fold_is_used_once() -> None:
    features, labels, *_ = world(6, 9)
    rng, fold = np.random.default_rng(0), folds_of(6, retrained=False)[0]
    for parts, tested in ((2, 4), (8, 1)):
        drawn = FoldPhotos.draw(fold, features[:, None], labels, rng, parts=parts, most=99)
        assert drawn is not None
        assert [int((drawn.truth[drawn.order < 0] == c).sum()) for c in range(len(fold.kept))] == [tested] * 4
        assert drawn.model.counts.tolist() == [9 - tested] * 4
    assert left_out.fittable(labels, 6) is None
    assert len({*itertools.chain(fold.kept, fold.left)}) == 6
