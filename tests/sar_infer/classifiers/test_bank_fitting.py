"""Statistics of a bank's own: what is pooled, who competes, and how a fitted bank ranks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.unit import unit

from sar_infer.bank import ClassBank, PhotoSet, add, fit, rollback
from sar_infer.classifiers import fitting
from sar_infer.classifiers.bank_fitting import BankFitting, fit_bank
from sar_infer.classifiers.composition import Composer
from sar_infer.classifiers.gaussian import TRACE, TrainedClasses, gaussian, scatter_of
from sar_infer.classifiers.statistics import Statistics, composed
from sar_infer.classifiers.trained_statistics import TrainedStatistics, enough
from sar_infer.classify import ranking
from sar_infer.classify.class_set import build_class_set
from sar_infer.classify.ranking import Scale
from sar_infer.errors import BankError, InputError

SIZE, SCALE, DIGEST = 24, 20.0, "e" * 64


RNG = np.random.default_rng(0)
TRUTH = RNG.normal(size=(20, SIZE)) * 0.15
TEXTS = unit(0.8 + 0.5 * TRUTH + 0.5 * RNG.normal(size=(20, SIZE)) * 0.15).astype(np.float32)
NAMES = tuple(f"class {number}" for number in range(20))


def photos(label: int, count: int, seed: int = 1, **changes: bool) -> PhotoSet:
    rng = np.random.default_rng(100 * seed + label)
    rows = unit(0.8 + TRUTH[label] + rng.normal(size=(count, SIZE)) * 0.16).astype(np.float32)
    return PhotoSet.of(rng.integers(0, 256, size=(count, 32), dtype=np.uint8), rows, **changes)


def sets(labels: range, count: int) -> dict[str, PhotoSet]:
    return {NAMES[label]: photos(label, count) for label in labels}


BASE = ClassBank.of(NAMES[:12], TEXTS[:12], DIGEST)
"""Six classes that were trained, six that are names."""


def trained(count: int = 12) -> TrainedStatistics:
    of_all = sets(range(6), count)
    features = np.concatenate([one.rows for one in of_all.values()]).astype(np.float64)
    result = fitting.fit(features, np.repeat(np.arange(6), count), TEXTS[:6].astype(np.float64), SCALE)
    return TrainedStatistics(NAMES[:6], result.statistics, DIGEST)


def with_photos(labels: range = range(12, 18), count: int = 10, base: ClassBank = BASE) -> ClassBank:
    chosen = list(labels)
    return add(base, [NAMES[label] for label in chosen], TEXTS[chosen], photos=sets(labels, count))


def fitted(bank: ClassBank, statistics: TrainedStatistics | None = None, **options: bool) -> BankFitting:
    rows = {name: bank.entry(name).embedding for name in bank.photos}
    return fit_bank(bank, BASE, statistics, SCALE, bank.photos, rows, **options)


@pytest.mark.parametrize(("classes", "shots"), [(6, 2), (6, 12), (20, 16)])
def test_the_covariance_comes_back_from_the_precision_matrix(classes: int, shots: int) -> None:
    rows = np.concatenate([photos(label, shots).rows for label in range(classes)]).astype(np.float64)
    model = gaussian(rows, np.repeat(np.arange(classes), shots), classes)
    stored = model.precision.astype(np.float32).astype(np.float64)
    outcome = scatter_of(stored, classes * shots)
    assert outcome is not None and model.scatter is not None
    np.testing.assert_allclose(outcome, model.scatter, atol=1e-4 * model.scatter.max())
    assert np.trace(stored @ outcome) == pytest.approx(TRACE)
    assert scatter_of(stored, 1) is None


def test_pooled_photos_are_as_if_all_had_been_there() -> None:
    """Means of two groups of classes, and the covariance of one, give the model of both."""
    rows = [photos(label, 8 + label).rows.astype(np.float64) for label in range(10)]
    labels = np.repeat(np.arange(10), [len(one) for one in rows])
    whole = gaussian(np.concatenate(rows), labels, 10)
    later = gaussian(np.concatenate(rows[6:]), labels[labels >= 6] - 6, 4)
    before = TrainedClasses(TEXTS[6:10].astype(np.float64), later.means, later.counts, later.scatter)
    both = gaussian(np.concatenate(rows[:6]), labels[labels < 6], 6, trained=before)
    for field in dataclasses.fields(whole):
        np.testing.assert_allclose(getattr(both, field.name), getattr(whole, field.name), rtol=1e-9, atol=1e-12)


def test_a_bank_of_its_own_fits_what_training_fits_to_the_same_photos() -> None:
    bank = with_photos(range(8), 12, ClassBank.of(NAMES[8:9], TEXTS[8:9], DIGEST))
    outcome = fitted(bank, only=True)
    features = np.concatenate([one.rows for one in bank.photos.values()]).astype(np.float64)
    expected = fitting.fit(features, np.repeat(np.arange(8), 12), TEXTS[:8].astype(np.float64), SCALE)
    assert (outcome.classes, outcome.photos, outcome.trained) == (NAMES[:8], 96, 0)
    assert outcome.choice == expected.choice
    np.testing.assert_array_equal(outcome.statistics.precision, expected.statistics.precision)
    assert outcome.statistics.confidence == expected.statistics.confidence
    assert outcome.choice.alpha > 0


def test_trained_classes_are_pooled_and_compete_and_names_compete() -> None:
    bank, statistics = with_photos(), trained()
    outcome = fitted(bank, statistics)
    assert (outcome.trained, len(outcome.statistics.counts)) == (6, 0)
    features = np.concatenate([one.rows for one in bank.photos.values()]).astype(np.float64)
    before = TrainedClasses.of(statistics.statistics, TEXTS[:6])
    model = gaussian(features, np.repeat(np.arange(6), 10), 6, trained=before)
    np.testing.assert_allclose(outcome.statistics.centre, model.centre, atol=1e-6)
    np.testing.assert_allclose(outcome.statistics.precision, model.precision, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(outcome.statistics.text_centre, TEXTS[[*range(12, 18), *range(6)]].mean(0), atol=1e-6)
    confidence = outcome.statistics.confidence
    assert confidence is not None
    assert confidence.others == pytest.approx(17)  # all other classes of the bank
    alone = fitted(bank, statistics, only=True)
    assert alone.trained == 0
    assert alone.statistics.confidence is not None
    assert alone.statistics.confidence.others == pytest.approx(5)
    assert alone.choice.expected[0].accuracy > outcome.choice.expected[0].accuracy


def test_a_trained_class_with_photos_of_the_bank_is_left_out_like_the_others() -> None:
    bank = add(with_photos(), [NAMES[0]], TEXTS[:1], photos={NAMES[0]: photos(0, 9, seed=7)})
    outcome = fitted(bank, trained())
    assert set(outcome.classes) == {NAMES[0], *NAMES[12:18]}
    assert outcome.trained == 5


def test_a_fitted_bank_ranks_by_its_own_statistics_until_that_is_taken_back() -> None:
    statistics = trained()
    bank = with_photos()
    result = fit(bank, fitted(bank, statistics).tensors)
    composer, plain = Composer(statistics, BASE, SCALE), Scale(factor=SCALE)
    classes = build_class_set(result, {}, False, lambda groups: TEXTS[:0], composer)
    images = photos(14, 5, seed=3).rows
    model = Statistics.from_tensors(result.fitted or {})
    means, counts = np.zeros((18, SIZE), np.float32), np.zeros(18, np.int64)
    means[:6], counts[:6] = statistics.statistics.means, 12
    means[12:], counts[12:] = [one.mean for one in bank.photos.values()], 10
    weights, bias = composed(model, SCALE, classes.embeddings, means, counts)
    expected = (images - model.centre) @ weights.T + bias
    outcome = ranking.logits(images, classes, plain)
    difference = outcome - expected
    np.testing.assert_allclose(difference, difference.mean(1, keepdims=True).repeat(18, 1), atol=2e-3)
    assert classes.photos.tolist() == counts.tolist()
    assert composer.confidence(result, classes.terms) == model.confidence

    undone = build_class_set(rollback(result, 1), {}, False, lambda groups: TEXTS[:0], composer)
    before = build_class_set(bank, {}, False, lambda groups: TEXTS[:0], composer)
    np.testing.assert_array_equal(ranking.logits(images, undone, plain), ranking.logits(images, before, plain))
    assert not np.allclose(ranking.logits(images, before, plain), outcome)


def test_names_that_mean_nothing_take_the_mean_text_row() -> None:
    bank = with_photos()
    meaningless = add(bank, ["SKU-1"], -TEXTS[:1], photos={"SKU-1": photos(18, 8, photos_only=True)})
    outcome = fitted(meaningless, only=True)
    names = [name for name in meaningless.photos if name != "SKU-1"]
    mean = np.array([bank.entry(name).embedding for name in names]).mean(0)
    np.testing.assert_allclose(outcome.statistics.text_centre, mean, atol=1e-6)


def test_classes_of_one_photo_compete_by_name() -> None:
    bank = with_photos()
    one = add(bank, [NAMES[18]], TEXTS[18:19], photos={NAMES[18]: photos(18, 1)})
    outcome = fitted(one)
    assert NAMES[18] not in outcome.classes
    assert outcome.statistics.confidence is not None
    assert outcome.statistics.confidence.others == pytest.approx(18)


def test_fewer_than_four_classes_with_two_photos_are_refused() -> None:
    bank = with_photos(range(12, 15))
    assert not enough(bank.photos)
    with pytest.raises(InputError, match="4 classes with 2 photos or more .*, got 3; add photos"):
        fitted(bank)
    assert enough({**bank.photos, "more": photos(15, 2)})
    assert not enough({**bank.photos, "more": photos(15, 1)})


def test_damaged_statistics_of_a_bank_are_one_line() -> None:
    bank = with_photos()
    tensors = dict(fitted(bank).tensors)
    composer = Composer(None, BASE, SCALE)
    for change in ({"alpha": np.array(-1.0)}, {"precision": np.eye(3, dtype=np.float32)}):
        with pytest.raises(BankError, match="statistics"):
            composer.terms(fit(bank, {**tensors, **change}))
    other = Statistics.default(4).tensors()
    with pytest.raises(BankError, match="fitted statistics of 4 numbers, expected 24"):
        composer.terms(fit(bank, other))
