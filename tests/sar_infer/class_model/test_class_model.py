"""The class model against loops, an independent optimiser and pictures drawn from it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from sar_infer.class_model import adapt, cross_validation, folds
from sar_infer.class_model import weights as weights_of
from sar_infer.class_model.cross_validation import Fitted, fit
from sar_infer.class_model.model import (
    USUAL,
    USUAL_UNKNOWN,
    ClassModel,
    Rivals,
    gaussian,
    linear,
    log_probabilities,
    scores_of,
)
from sar_infer.errors import BankError
from sar_infer.measures import upper_limit

SIZE, SCALE = 24, 20.0


class World:
    """Classes whose means and text rows are related, and photos of them."""

    def __init__(self, classes: int, seed: int = 0, size: int = SIZE) -> None:
        self.rng = np.random.default_rng(seed)
        self.around = around = self.rng.normal(0, 1, size)
        texts = self.rng.normal(0, 1, (classes, size))
        self.texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
        self.means = around + 1.6 * self.texts + self.rng.normal(0, 0.25, (classes, size))

    def photos(self, label: int, count: int) -> Any:
        """Return unit features (count, D)."""
        rows = self.means[label] + self.rng.normal(0, 0.45, (count, self.means.shape[1]))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def set(self, classes: Any, count: int) -> tuple[Any, Any]:
        """Return features and labels."""
        classes = list(classes)
        return np.concatenate([self.photos(c, count) for c in classes]), np.repeat(classes, count)


@pytest.fixture(scope="module")
def world() -> World:
    return World(14)


@pytest.fixture(scope="module")
def fitted(world: World) -> Fitted:
    return fit(*world.set(range(8), 16), world.texts[:8], SCALE)


def bank(world: World, photos: list[int]) -> tuple[Any, Any]:
    """Return mean features (C, D) and counts (C,) of so many photos of each class."""
    means = [world.photos(c, n).mean(0) if n else np.full(SIZE, np.nan) for c, n in enumerate(photos)]
    return np.array(means), np.array(photos)


def test_closed_form_is_that_of_loops(world: World) -> None:
    rows, labels = world.set(range(5), 4)
    model = gaussian(rows, labels, world.texts[:5], np.ones(5, np.bool_))
    means = [rows[labels == c].mean(0) for c in range(5)]
    scatter = sum(np.outer(x - means[c], x - means[c]) for x, c in zip(rows, labels, strict=True)) / 15
    expected = 19 * scatter + 3 * np.trace(scatter) * np.eye(SIZE)
    assert np.allclose(model.precision @ expected, (19 + 3 * SIZE) * np.eye(SIZE))
    named = world.texts[:5] - world.texts[:5].mean(0)
    apart_from_centre = np.array(means) - np.mean(means, axis=0)
    slope = (named * apart_from_centre).sum() / (named**2).sum()
    assert model.slope == pytest.approx(slope)
    rest = apart_from_centre - slope * named
    variance = (rest**2).sum(1).mean() * 5 / 4 - np.trace(scatter) / 4
    assert model.prior == pytest.approx(np.trace(scatter) / variance)


@pytest.mark.parametrize("moved", [False, True])
def test_scores_are_the_log_densities_of_the_model(fitted: Fitted, moved: bool) -> None:
    world = World(14, seed=5)
    model = dataclasses.replace(fitted.model, weights=np.array([0.3, 0.2, 0.5, -1.0]))
    model = cross_validation._far(model, 0.2, 30.0)
    shift = world.rng.normal(0, 0.1, SIZE) if moved else np.zeros(SIZE)
    means, counts = bank(world, [3, 0, 7, 1])
    named = np.array([True, True, False, True])
    images = world.set(range(4), 3)[0]
    scores = scores_of(model, images, *linear(model, world.texts[:4], means, counts, named, shift))
    covariance = np.linalg.inv(model.precision.astype(np.float64))
    for n, x in enumerate(images + shift):
        values = []
        for c in range(4):
            predicted = model.centre + (model.slope * (world.texts[c] - model.text_centre) if named[c] else 0)
            shown = counts[c] * means[c] if counts[c] else 0
            mean = (shown + model.prior * predicted) / (counts[c] + model.prior)
            text = world.texts[c] if named[c] else model.text_centre
            density = multivariate_normal(mean, covariance, allow_singular=True).logpdf(x)
            noise = SIZE / (counts[c] + model.prior) / 2
            values.append(0.3 * density + 0.2 * noise + 0.5 * SCALE * x @ text)
        strange = 0.3 * multivariate_normal(model.centre, covariance, allow_singular=True).logpdf(x)
        distance = (x - model.centre) @ model.precision @ (x - model.centre)
        strange += 0.3 * 0.2 / (1 + model.broad) * SIZE * (distance / 30 - 1) / 2
        values.append(strange + 0.2 * SIZE / model.broad / 2 + 0.5 * SCALE * x @ model.text_centre - 1.0)
        assert np.allclose(scores[n] - scores[n, 0], np.array(values) - values[0], atol=2e-3)


def test_arrays_hold_the_model_to_the_bit_and_damage_is_told(fitted: Fitted) -> None:
    arrays = fitted.model.tensors()
    again = ClassModel.from_tensors(arrays).tensors()
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    small = fit(*World(4, size=32).set(range(4), 3), World(4, size=32).texts, SCALE).model.tensors()
    for name, value in (
        ("precision", -fitted.model.precision),
        ("prior", np.array(0.0)),
        ("weights", np.zeros(3)),
        ("sets", np.ones((2, 2))),
        *(("factor", small["factor"] * factor) for factor in (50, np.nan)),
        *(("level", np.array(level)) for level in (-1.0, 0.0, np.inf)),
        ("factor", small["factor"][0]),
    ):
        with pytest.raises(BankError, match="class model"):
            ClassModel.from_tensors({**(small if name in ("factor", "level") else arrays), name: value})
    with pytest.raises(BankError, match="slope"):
        ClassModel.from_tensors({name: value for name, value in arrays.items() if name != "slope"})


def test_few_photos_make_few_arrays_which_answer_as_the_whole_matrix() -> None:
    world, size = World(6, size=512), 512
    rows, labels = world.set(range(6), 16)
    arrays = fit(rows, labels, world.texts, SCALE).model.tensors()
    assert sum(array.nbytes for array in arrays.values()) < 0.2e6 < 4 * size**2
    model = ClassModel.from_tensors(arrays)
    means = np.array([rows[labels == c].mean(0) for c in range(6)])
    apart = rows - means[labels]
    scatter, mass = apart.T @ apart / (96 - 6), 3.0 * size
    whole = np.linalg.inv(95 * scatter + 3.0 * np.trace(scatter) * np.eye(size)) * (95 + mass)
    values, axes = np.linalg.eigh(whole)
    z = world.set(range(6), 5)[0] - model.centre
    far = (((z @ axes[:, :64]) ** 2) * values[:64]).sum(1) + ((z @ axes[:, 64:]) ** 2).sum(1) * values[64:].mean()
    gain = model.length / values[64:].mean()  # 1 / n
    ours = model.length * (z**2).sum(1) - ((z @ model.axes.astype(float)) ** 2).sum(1)
    assert model.share and np.allclose(far * gain, ours, rtol=2e-3)  # axes are rounded to half precision
    assert np.allclose(model.precision, whole, atol=2e-7 * values[-1])
    reference, few = dataclasses.replace(model, level=0.0, factor=whole), np.array([16, 16, 16, 2, 0, 16])
    images = z + model.centre
    scores = [log_probabilities(scores_of(m, images, *linear(m, world.texts, means, few))) for m in (model, reference)]
    assert np.abs(np.exp(scores[0]) - np.exp(scores[1])).max() < 1e-6


def test_weights_are_the_maximum_that_scipy_finds(world: World) -> None:
    rows, labels = world.set(range(6), 6)
    shared = folds.Folds(rows, world.texts[:6], None, labels, np.ones(6, np.bool_), SCALE, [], SIZE, 0.0, 0)
    tasks = [*shared.tasks(0)]
    total = sum(float(task.images["weight"].sum()) for task in tasks)

    def loss(at: Any) -> float:
        apart = at - np.array(USUAL)
        apart[1] -= USUAL[1] / USUAL[0] * apart[0]
        spread = np.array([weights_of._FREE, weights_of._HELD, weights_of._FREE, weights_of._HELD]) * USUAL
        value = float(((apart / spread) ** 2).sum()) / 2
        for task in tasks:
            scores = np.tensordot(at[:3], task.terms.astype(np.float64), 1)
            scores[:, -1] += at[3]
            logs = log_probabilities(scores)
            value -= 24 / total * float(task.images["weight"] @ logs[np.arange(len(logs)), task.images["truth"]])
        return value

    weights, curve = weights_of.likeliest(tasks, 24.0, np.array(USUAL))
    found = minimize(
        loss, np.array(USUAL), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000}
    )
    assert loss(weights) <= found.fun + 1e-5
    assert np.allclose(weights, found.x, atol=2e-3)
    assert (np.linalg.eigvalsh(curve) > 0).all()


def test_few_photos_are_fitted_in_their_span(world: World) -> None:
    wide = World(5, size=200)
    rows, labels = wide.set(range(4), 5)
    rivals = Rivals(wide.texts[4:], np.zeros((1, 200)), np.zeros(1))
    short = folds.in_span(rows, wide.texts[:4], rivals)
    assert short[0].shape[1] < 30
    named = np.ones(5, np.bool_)
    terms = []
    for some, texts, others in ((rows, wide.texts[:4], rivals), short):
        assert others is not None
        closed = gaussian(some, labels, texts, named[:4], size=200)
        all_texts = np.concatenate([texts, others.texts])
        sums = np.zeros(all_texts.shape)
        np.add.at(sums, labels, some - closed.centre)
        columns = folds.columns_of(closed, sums, np.array([5, 5, 5, 5, 0.0]), all_texts, named)
        terms.append(folds.terms_of(closed, some, columns, SCALE, 200))
    assert np.allclose(terms[0], terms[1], atol=2e-3)


def test_another_seed_gives_the_same_model(world: World) -> None:
    rows, labels = world.set(range(6), 16)
    first, second = (fit(rows, labels, world.texts[:6], SCALE, seed=seed).model for seed in (1, 2))
    images, truth = world.set(range(6), 40)
    means = np.array([rows[labels == c].mean(0) for c in range(6)])
    logs = []
    for model in (first, second):
        weights, bias = linear(model, world.texts[:6], means, np.full(6, 16))
        logs.append(log_probabilities(images @ weights.T + bias))
    assert abs((logs[0][:, :-1].argmax(1) == truth).mean() - (logs[1][:, :-1].argmax(1) == truth).mean()) < 0.01
    assert np.abs(np.exp(logs[0]) - np.exp(logs[1])).mean() < 0.01


def test_added_classes_and_unknown_images_on_drawn_photos(world: World, fitted: Fitted) -> None:
    means, counts = bank(world, [16] * 8 + [0, 1, 2, 4])
    images, truth = world.set(range(14), 60)
    logs = log_probabilities(scores_of(fitted.model, images, *linear(fitted.model, world.texts[:12], means, counts)))
    known = truth < 12
    right = logs[known, :-1].argmax(1) == truth[known]
    assert right.mean() > 0.85
    scores = np.exp(log_probabilities(logs[known, :-1]).max(1))
    assert abs(scores.mean() - right.mean()) < 0.14
    strange = np.exp(logs[:, -1])
    assert (strange[~known][:, None] > strange[known]).mean() > 0.7
    best = logs[known, :-1].argmax(1)
    assert (strange[known] > fitted.model.unknown_threshold(counts)[best]).mean() < 0.12
    least = fitted.model.least(0.9, counts)
    assert least is not None
    own = np.exp(log_probabilities(logs[known, :-1]))[np.arange(known.sum()), truth[known]]
    assert (own >= least[truth[known]]).mean() > 0.85
    assert fitted.model.least(0.7, counts) is None
    added = dict(fitted.model.expected[:, [0, 2]].tolist())
    assert added[0] < added[8]


def test_accuracy_among_twice_as_many_classes_is_extrapolated() -> None:
    """Against loops over subsets of rivals, and against classes whose number doubles."""
    above = np.array([0, 0, 1, 3, 4])
    for number in (4, 2, 3):
        subsets = [set(one) for one in itertools.combinations(range(4), number)]
        shares = [np.mean([not one & set(range(count)) for one in subsets]) for count in above.tolist()]
        assert np.allclose(cross_validation._among_fewer(4, np.array([number]))[0, above], shares)
    world = World(24, seed=3)
    promised, measured = [], []
    for first in (0, 12):
        part = range(first, first + 12)
        rows, labels = world.set(part, 8)
        fitted = fit(rows, labels - first, world.texts[list(part)], SCALE).model
        promised.append(dict(fitted.expected[:, [0, 2]].tolist())[0])
        means = np.concatenate([[rows[labels == c].mean(0) for c in part], np.zeros((12, SIZE))])
        order = [*part, *(c for c in range(24) if c not in part)]
        weights, bias = linear(fitted, world.texts[order], means, np.repeat([8, 0], 12))
        images, truth = world.set(order[12:], 30)
        measured.append((np.array(order)[(images @ weights.T + bias)[:, :-1].argmax(1)] == truth).mean())
    assert np.mean(promised) == pytest.approx(np.mean(measured), abs=0.1)


@pytest.mark.parametrize(("classes", "count"), [(1, 3), (2, 4), (3, 2), (6, 1)])
def test_too_few_classes_or_photos_take_the_usual_weights(classes: int, count: int) -> None:
    world = World(14, seed=1)
    rows, labels = world.set(range(classes), count)
    result = fit(rows, labels, world.texts[:classes], SCALE)
    assert result.why is not None
    assert result.model.weights.tolist() == list(USUAL)
    assert (result.model.share == 0) is (count == 1)
    assert (result.model.unknown_threshold(9) == USUAL_UNKNOWN) == (count == 1)
    means = np.array([rows[labels == c].mean(0) for c in range(classes)])
    weights, bias = linear(result.model, world.texts[:classes], means, np.full(classes, count))
    images, truth = world.set(range(classes), 30)
    assert ((images @ weights.T + bias)[:, :-1].argmax(1) == truth).mean() > 0.5


def test_without_any_photo_names_rank_by_text(world: World) -> None:
    model = ClassModel.unfitted(SIZE, SCALE)
    assert math.isnan(model.unknown_threshold(0))
    weights, bias = linear(model, world.texts, np.zeros_like(world.texts), np.zeros(14))
    images = world.set(range(14), 2)[0]
    scores, text = (images @ weights.T + bias)[:, :-1], images @ world.texts.T
    assert np.array_equal(scores.argmax(1), text.argmax(1))


def test_rivals_take_part(world: World, fitted: Fitted) -> None:
    rows, labels = world.set(range(4, 9), 8)
    labels = labels - 4
    nothing = np.zeros((4, SIZE))
    named = fit(rows, labels, world.texts[4:9], SCALE, rivals=Rivals(world.texts[9:13], nothing, np.zeros(4)))
    assert named.model.rivals == 8
    means, counts = bank(world, [16] * 4)
    pooled = fit(
        rows, labels, world.texts[4:9], SCALE, rivals=Rivals(world.texts[:4], means, counts * 1.0, fitted.model)
    )
    assert pooled.model.photos == 8 * 16 + 5 * 8
    assert not np.array_equal(pooled.model.precision, named.model.precision)


def test_the_usual_distance_is_that_of_photos_left_out_in_turn() -> None:
    world = World(14, seed=5)
    rows, labels = world.set(range(4), 5)
    named = np.ones(4, np.bool_)
    closed = gaussian(rows, labels, world.texts[:4], named)
    distances = []
    for n in range(len(rows)):
        keep = np.arange(len(rows)) != n
        other = gaussian(rows[keep], labels[keep], world.texts[:4], named)
        distances.append((rows[n] - other.centre) @ other.precision @ (rows[n] - other.centre))
    assert folds.usual_distance(closed, rows, labels, SIZE) == pytest.approx(np.mean(distances), rel=0.06)


def test_a_further_value_exceeds_the_limit_as_often_as_promised() -> None:
    rng, values = np.random.default_rng(0), []
    for _ in range(4000):
        drawn = rng.normal(3, 1, 7)
        values.append(drawn[6] > upper_limit(drawn[:6], photos=0.0))
    assert np.mean(values) == pytest.approx(0.05, abs=0.012)
    assert upper_limit(np.array([2.0])) == pytest.approx(2 + stats.t.ppf(0.95, 4) * math.sqrt(2), rel=0.01)


def test_two_classes_have_a_threshold_from_photos_left_out() -> None:
    world = World(14, seed=5)
    rows, labels = world.set(range(2), 6)
    model = fit(rows, labels, world.texts[:2], SCALE).model
    means = np.array([rows[labels == c].mean(0) for c in range(2)])
    images, truth = world.set(range(14), 40)
    strange = np.exp(
        log_probabilities(scores_of(model, images, *linear(model, world.texts[:2], means, np.full(2, 6))))[:, -1]
    )
    called = strange > model.unknown_threshold(6)
    assert called[truth < 2].mean() < 0.15
    assert (strange[truth >= 2][:, None] > strange[truth < 2]).mean() > 0.7


def test_near_images_do_not_pay_for_far_ones() -> None:
    """Absent classes that the distance would hide get none of it; others get all."""
    rng = np.random.default_rng(0)
    terms = np.zeros((3, 400, 3), np.float32)
    side = np.repeat([folds.STAYED, folds.ABSENT], 200)
    terms[1, :, -1] = np.where(side == folds.ABSENT, 1.0, -1.0) + rng.normal(0, 1, 400)
    for sign, share in ((1.0, 1.0), (-1.0, 0.0)):
        far = sign * np.where(side == folds.ABSENT, 2.0, -2.0)
        images = np.zeros(len(side), folds.IMAGE)
        images["side"], images["far"] = side, far
        task = folds.Task(terms, images)
        assert cross_validation.share_of(np.array([1.0, 1.0, 0.0, 0.0]), [task]) == share


def test_classes_without_a_name(world: World) -> None:
    rows, labels = world.set(range(6), 8)
    named = np.array([True] * 4 + [False] * 2)
    nonsense = world.texts[:6].copy()
    nonsense[4:] = world.rng.normal(0, 1, (2, SIZE))
    other = nonsense.copy()
    other[4:] = 0
    models = [fit(rows, labels, texts, SCALE, named=named).model for texts in (nonsense, other)]
    assert np.array_equal(models[0].weights, models[1].weights)


def test_prompts_trained_again_on_halves(world: World) -> None:
    rows, labels = world.set(range(8), 8)
    noise = [world.texts[:8] + world.rng.normal(0, 0.5, (8, SIZE)) for _ in range(2)]
    poor = fit(rows, labels, world.texts[:8], SCALE, in_halves=noise)
    good = fit(rows, labels, world.texts[:8], SCALE, in_halves=[world.texts[:8]] * 2)
    assert good.scores.shape == (8,)
    assert good.scores.mean() > poor.scores.mean()


def classes_of(world: World, photos: list[int]) -> adapt.Classes:
    means, counts = bank(world, photos)
    return adapt.Classes(
        world.texts[: len(photos)].astype(np.float32),
        means.astype(np.float32),
        counts * 1.0,
        np.ones(len(photos), np.bool_),
    )


def accuracy(model: ClassModel, known: adapt.Classes, images: Any, truth: Any, shift: Any = None) -> float:
    weights, bias = linear(model, known.texts, known.means, known.counts, known.named, shift)
    return float(((images @ weights.T + bias)[:, :-1].argmax(1) == truth).mean())


def test_adapting_helps_classes_by_name_and_unknown_images_do_not_harm(world: World, fitted: Fitted) -> None:
    known = classes_of(world, [16] * 8 + [0] * 4)
    images, truth = world.set(range(12), 60)
    before = accuracy(fitted.model, known, images, truth)
    stream = world.set(range(12), 20)[0].astype(np.float32)
    learned = adapt.adapt(fitted.model, known, stream)
    assert accuracy(fitted.model, learned.classes(known), images, truth) >= before
    assert 0 < learned.counts.sum() <= 0.1 * len(stream) + 1e-6
    strangers = world.around + world.rng.normal(0, 0.6, (240, SIZE))
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    learned = adapt.adapt(fitted.model, known, np.concatenate([stream, strangers]).astype(np.float32))
    assert accuracy(fitted.model, learned.classes(known), images, truth) >= before - 0.03


def test_adapting_does_not_depend_on_chunks(world: World, fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    known, stream = classes_of(world, [16] * 4), world.set(range(4), 10)[0].astype(np.float32)
    whole = adapt.adapt(fitted.model, known, stream)
    monkeypatch.setattr(adapt, "_CELLS", 7 * SIZE)
    parts = adapt.adapt(fitted.model, known, stream)
    assert np.allclose(whole.sums, parts.sums, atol=1e-4)


def test_a_stream_of_another_kind_teaches_nothing_unless_all_are_known(world: World, fitted: Fitted) -> None:
    known = classes_of(world, [16] * 8)
    shift = np.zeros(SIZE)
    shift[: SIZE // 2] = 0.35
    images, truth = world.set(range(8), 40)
    moved = (images + shift).astype(np.float32)
    learned = adapt.adapt(fitted.model, known, moved)
    assert learned.shift > 0.25
    assert not learned.counts.any()
    taught = adapt.adapt(fitted.model, known, moved, all_known=True)
    after = accuracy(fitted.model, taught.classes(known), moved, truth, taught.translation)
    assert after > accuracy(fitted.model, known, moved, truth)


def test_nothing_is_learned_from_too_few_photos(world: World, fitted: Fitted) -> None:
    known = classes_of(world, [16] * 2)
    for count in (0, 9):
        stream = world.set(range(2), 9)[0][: 2 * count].astype(np.float32)
        assert not adapt.adapt(fitted.model, known, stream).counts.any()


def test_what_other_classes_expect_is_that_of_a_bank_without_the_class(world: World, fitted: Fitted) -> None:
    model = dataclasses.replace(fitted.model, share=0.0)
    photos, images = [16] * 4 + [0] * 2, world.set(range(6), 5)[0]
    means, counts = bank(world, photos)

    def probabilities(some: list[int]) -> Any:
        return np.exp(
            log_probabilities(scores_of(model, images, *linear(model, world.texts[some], means[some], counts[some])))
        )

    expected = world.rng.normal(0, 1, (6, SIZE))
    shares = probabilities([*range(6)])[:, :-1]
    others = adapt.of_others(shares, expected, np.array([4, 5]))
    for row, c in enumerate((4, 5)):
        rest = [other for other in range(6) if other != c]
        blends = probabilities(rest)[:, :-1] @ expected[rest]
        assert np.allclose(others[row], sum(shares[n, c] * blends[n] for n in range(30)), atol=1e-4)
    half = (expected[4:] + others / 10) / 2  # of ten photos of each, five are its own
    assert np.allclose(adapt.own_shares(model, expected[4:], np.full(2, 10.0), 10 * half, others), 0.5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_long_stream_of_trained_classes_spares_those_known_by_name(seed: int) -> None:
    world = World(24, seed)
    world.means = world.around + world.texts + world.rng.normal(0, 0.5, (24, SIZE))
    model = fit(*world.set(range(12), 16), world.texts[:12], SCALE).model
    known = classes_of(world, [16] * 12 + [0] * 12)
    images, truth = world.set(range(12, 24), 60)
    before = accuracy(model, known, images, truth)
    trained, every = (adapt.adapt(model, known, world.set(range(n), 200)[0].astype(np.float32)) for n in (12, 24))
    assert accuracy(model, trained.classes(known), images, truth) >= before - 0.01
    assert accuracy(model, every.classes(known), images, truth) >= before + 0.02
