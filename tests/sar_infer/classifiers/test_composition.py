"""Composed logits of class sets against the formula, class by class in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from support.bundles import DIM, ENCODER_DIGEST
from support.trained import by_hand, example_statistics, photos

from sar_infer.bank import ClassBank, ClassInfo, add, remove, rename
from sar_infer.classifiers.composition import Composer
from sar_infer.classifiers.scores import softmax
from sar_infer.classifiers.trained_statistics import ClassPhotos, TrainedStatistics
from sar_infer.classify import ranking
from sar_infer.classify.class_set import NO_PHOTOS, ClassSet, build_class_set, with_photos
from sar_infer.classify.ranking import Scale
from sar_infer.encoders.encoders import unit_rows
from sar_infer.errors import InputError

SCALE = Scale(factor=20.0)
NAMES = ("red", "green", "blue", "grey", "teal", "pink")
TRAINED = example_statistics(NAMES[:3])


def some_rows(count: int, seed: int) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32))


ROWS = some_rows(7, 9)
BANK = ClassBank(NAMES, some_rows(len(NAMES), 3), ENCODER_DIGEST)


def embed(groups: Sequence[tuple[str, ...]]) -> np.ndarray:
    return np.concatenate([some_rows(1, sum(map(ord, "".join(group)))) for group in groups])


def class_set(
    given: Sequence[str] = (),
    bank: ClassBank = BANK,
    only: bool = False,
    seen: Mapping[str, ClassPhotos] = NO_PHOTOS,
    trained: TrainedStatistics | None = TRAINED,
    offset: float = 0.0,
) -> ClassSet:
    names, found = with_photos({name: (name,) for name in given}, seen, DIM)
    return build_class_set(bank, names, only, embed, Composer(trained, BANK, SCALE.factor, offset), found)


def known(classes: ClassSet, more: Mapping[str, ClassPhotos] = NO_PHOTOS) -> dict[int, ClassPhotos]:
    model, found = TRAINED.statistics, {}
    for column, name in enumerate(classes.names):
        parts = [more[name]] if name in more else []
        if name in TRAINED.names:
            place = TRAINED.names.index(name)
            parts.append(ClassPhotos(model.means[place], int(model.counts[place])))
        if parts:
            found[column] = parts[0] if len(parts) == 1 else parts[0].joined(parts[1])
    return found


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference but for one constant for each image, relative to the largest logit."""
    differences = found - expected
    differences = differences - differences.mean(axis=1, keepdims=True)
    return float(np.abs(differences).max() / np.abs(expected).max())


MIXED = {"violet": photos(5, 2), "SKU-1": photos(6, 4, photos_only=True), "grey": photos(7, 1), "red": photos(8, 3)}


@pytest.mark.parametrize("offset", [0.0, -1.5])
@pytest.mark.parametrize(
    ("given", "only", "seen"),
    [
        ((), False, NO_PHOTOS),
        (("ochre", "green"), False, NO_PHOTOS),
        (("ochre", "green", "blue"), True, NO_PHOTOS),
        (("ochre",), False, MIXED),
        (("ochre",), True, MIXED),
    ],
)
def test_logits_are_those_of_the_formula(
    offset: float, given: tuple[str, ...], only: bool, seen: Mapping[str, ClassPhotos]
) -> None:
    """Trained, named, by photos, by both, photos only, and more photos of a trained class, in one ranking."""
    classes = class_set(given, only=only, seen=seen, offset=offset)
    assert classes.terms is not None and classes.branch == "text+statistics"
    expected = by_hand(TRAINED.statistics, SCALE.factor, ROWS, classes.embeddings, known(classes, seen), offset)
    assert apart(ranking.logits(ROWS, classes, SCALE), expected) < 2e-6
    found = ranking.rank(ROWS, classes, SCALE, 3)
    assert found.columns.tolist() == np.argsort(-expected, axis=1)[:, :3].tolist()
    assert found.scores == pytest.approx(np.take_along_axis(softmax(expected), found.columns, 1), abs=1e-4)
    cosines = np.take_along_axis(ROWS @ classes.embeddings.T, found.columns, 1)
    assert found.similarities == pytest.approx(cosines, abs=1e-6)


def test_one_class_has_the_same_logit_however_it_came() -> None:
    """A photo counts the same whether a class of the bank gets it, or a class of the call."""
    seen = {"grey": photos(7, 1)}
    beside = class_set(seen=seen)
    alone = class_set(("red", "green", "blue", "teal", "pink"), only=True, seen=seen)
    order = [list(alone.names).index(name) for name in beside.names]
    assert ranking.logits(ROWS, beside, SCALE) == pytest.approx(ranking.logits(ROWS, alone, SCALE)[:, order], abs=1e-4)


@pytest.mark.parametrize(
    "trained",
    [None, example_statistics(NAMES[:3], alpha=0.0, offsets=((0, 0.0),))],
    ids=["no statistics", "alpha 0"],
)
@pytest.mark.parametrize("given", [(), ("ochre", "red")])
def test_without_statistics_text_answers_to_the_bit(trained: TrainedStatistics | None, given: tuple[str, ...]) -> None:
    classes = class_set(given, trained=trained)
    plain = build_class_set(BANK, {name: (name,) for name in given}, False, embed)
    assert classes.terms is None and classes.branch == "text"
    found, expected = (ranking.rank(ROWS, chosen, SCALE, 4) for chosen in (classes, plain))
    for field in dataclasses.fields(found):
        assert np.array_equal(getattr(found, field.name), getattr(expected, field.name))


def test_photos_count_without_statistics_too() -> None:
    """Names rank by text alone, and an image of photos is nearest to them."""
    mean = unit_rows(ROWS[:1])[0]
    classes = class_set(seen={"violet": ClassPhotos(mean, 4)}, trained=None)
    logits = ranking.logits(ROWS, classes, SCALE)
    text = SCALE.factor * (ROWS @ BANK.embeddings.T)
    assert logits[:, :-1] == pytest.approx(text, abs=1e-4)
    without = SCALE.factor * (ROWS[:1] @ classes.embeddings[-1:].T)
    assert logits[0, -1] > without[0, 0] + 5


def test_a_large_offset_favours_classes_that_are_named_only() -> None:
    named = ["grey", "teal", "pink"]
    classes = class_set(offset=50.0)
    for columns in ranking.rank(ROWS, classes, SCALE, 3).columns:
        assert sorted(classes.names[column] for column in columns) == sorted(named)
    assert classes.shifted and not class_set().shifted


def test_trained_classes_keep_their_photos_as_long_as_they_keep_their_rows() -> None:
    """A renamed class is the same class; one that was embedded anew is another that is named only."""
    bank = rename(remove(BANK, ["green"]), "blue", "navy")
    bank = add(remove(bank, ["red"]), ["red"], some_rows(1, 77), {"red": ClassInfo(phrases=("red wine",))})
    rows, places = TRAINED.positions_in(BANK, bank)
    assert [bank.names[row] for row in rows.tolist()] == ["navy"]
    assert [TRAINED.names[place] for place in places.tolist()] == ["blue"]
    kept = TRAINED.for_bank(BANK, bank)
    assert kept.names == ("navy",)
    assert kept.statistics.means.tolist() == TRAINED.statistics.means[[2]].tolist()
    assert kept.statistics.counts.tolist() == [5]
    classes = class_set(bank=bank)
    column = list(classes.names).index("navy")
    whole = class_set()
    assert ranking.logits(ROWS, classes, SCALE)[:, column] == pytest.approx(
        ranking.logits(ROWS, whole, SCALE)[:, 2], abs=1e-4
    )


def test_photos_under_two_spellings_of_a_class_count_together() -> None:
    once = class_set(seen={"grey": photos(7, 1).joined(photos(8, 3))})
    twice = class_set(("GREY",), seen={"grey": photos(7, 1), "Grey ": photos(8, 3)})
    assert list(twice.names).count("GREY") + list(twice.names).count("grey") == 1
    logits = {name: ranking.logits(ROWS, classes, SCALE) for name, classes in (("a", once), ("b", twice))}
    assert np.sort(logits["a"], axis=1) == pytest.approx(np.sort(logits["b"], axis=1), abs=1e-4)


def test_photos_of_an_alias_are_photos_of_its_class() -> None:
    bank = ClassBank(NAMES, BANK.embeddings, ENCODER_DIGEST, info={"grey": ClassInfo(aliases=("ash",))})
    by_alias, by_name = (class_set(bank=bank, seen={name: photos(7, 2)}) for name in ("ash", "grey"))
    assert len(by_alias.names) == len(NAMES)
    assert np.sort(ranking.logits(ROWS, by_alias, SCALE)) == pytest.approx(
        np.sort(ranking.logits(ROWS, by_name, SCALE)), abs=1e-5
    )


@pytest.mark.parametrize(
    ("mean", "count"), [(np.ones(DIM, np.float32), 2), (np.full(DIM, np.nan, np.float32), 2), (ROWS[0], 0)]
)
def test_photos_that_cannot_be(mean: np.ndarray, count: int) -> None:
    with pytest.raises(InputError, match="photos"):
        ClassPhotos(mean, count)


def test_photos_of_another_encoder_are_refused() -> None:
    with pytest.raises(InputError, match="violet"):
        class_set(seen={"violet": photos(dim=4)})


def test_a_bank_that_grew_has_the_logits_of_one_that_is_new() -> None:
    """Use again what is known of rows that an earlier bank had; here all but the last class."""
    composer = Composer(TRAINED, BANK, SCALE.factor)
    before = build_class_set(BANK, {}, False, embed, composer)
    grown = add(BANK, ["olive"], some_rows(1, 41))
    after = build_class_set(grown, {}, False, embed, composer)
    fresh = class_set(bank=grown)
    assert np.array_equal(ranking.logits(ROWS, after, SCALE), ranking.logits(ROWS, fresh, SCALE))
    assert np.array_equal(ranking.logits(ROWS, after, SCALE)[:, :-1], ranking.logits(ROWS, before, SCALE))
