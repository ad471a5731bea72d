"""Composed logits of class sets against the formula, class by class in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.bundles import DIM, ENCODER_DIGEST
from support.examples import examples
from support.trained import apart, by_hand, evidence, example_statistics, photo_set_of, photos, unit_rows_of

from sar_infer.bank import ClassBank, add, remove, rename, set_class
from sar_infer.classifiers.composition import Composer
from sar_infer.classifiers.scores import softmax
from sar_infer.classifiers.statistics import Statistics
from sar_infer.classifiers.trained_statistics import ClassPhotos, TrainedStatistics
from sar_infer.classify import ranking
from sar_infer.classify.class_set import NO_PHOTOS, ClassSet, build_class_set, with_photos
from sar_infer.classify.ranking import Scale
from sar_infer.errors import InputError

SCALE = Scale(factor=20.0)
NAMES = ("red", "green", "blue", "grey", "teal", "pink")
NEW_NAMES = ("ochre", "violet", "SKU-1")
TRAINED = example_statistics(NAMES[:3])
TEXT_ALONE = example_statistics(NAMES[:3], alpha=0.0, offsets=((0, 0.0),))
ROWS = unit_rows_of(7, 9)
BANK = ClassBank.of(NAMES, unit_rows_of(len(NAMES), 3), ENCODER_DIGEST)


def embed(groups: Sequence[tuple[str, ...]]) -> np.ndarray:
    return np.concatenate([unit_rows_of(1, sum(map(ord, "".join(group)))) for group in groups])


def class_set(
    class_names: Sequence[str] = (),
    bank: ClassBank = BANK,
    only: bool = False,
    shown: Mapping[str, ClassPhotos] = NO_PHOTOS,
    trained: TrainedStatistics | None = TRAINED,
    offset: float = 0.0,
) -> ClassSet:
    phrases, by_name = with_photos({name: (name,) for name in class_names}, shown, DIM)
    return build_class_set(bank, phrases, only, embed, Composer(trained, BANK, SCALE.factor, offset), by_name)


def logits(classes: ClassSet) -> np.ndarray:
    return ranking.logits(ROWS, classes, SCALE)


def photos_of(*names: str) -> st.SearchStrategy[dict[str, tuple[int, bool]]]:
    """Number of photos, and whether the name means nothing, by class name."""
    return st.dictionaries(st.sampled_from(names), st.tuples(st.integers(0, 4), st.booleans()), max_size=4)


@settings(max_examples=examples(100))
@given(
    in_bank=photos_of(*NAMES),
    in_call=photos_of(*NAMES, *NEW_NAMES),
    class_names=st.lists(st.sampled_from([*NAMES, *NEW_NAMES]), unique=True, max_size=4),
    only=st.booleans(),
    has_statistics=st.booleans(),
    offset=st.sampled_from([0.0, -1.5, 50.0]),
)
def test_logits_are_those_of_the_formula_however_classes_came(
    in_bank: dict[str, tuple[int, bool]],
    in_call: dict[str, tuple[int, bool]],
    class_names: list[str],
    only: bool,
    has_statistics: bool,
    offset: float,
) -> None:
    """Trained, named, by photos, by both, by photos only, and more photos of any class, in one ranking."""
    sets = {name: photo_set_of(count, len(name), photos_only=alone) for name, (count, alone) in in_bank.items()}
    bank = add(BANK, [], np.empty((0, DIM), np.float32), photos=sets)
    bank_photos = {name: ClassPhotos.of(one) for name, one in bank.photos.items()}
    shown = {name: photos(len(name), count, photos_only=alone) for name, (count, alone) in in_call.items() if count}
    assume(class_names or shown or not only)
    trained, offset = (TRAINED, offset) if has_statistics else (None, 0.0)
    classes = class_set(class_names, bank, only, shown, trained, offset)
    model = Statistics.default(DIM) if trained is None else trained.statistics
    by_column = evidence(classes.names, trained, bank_photos, shown)
    expected = by_hand(model, SCALE.factor, ROWS, classes.embeddings, by_column, offset)
    assert apart(logits(classes), expected) < 2e-6
    assert classes.branch == ("text+statistics" if trained or bank_photos or shown else "text")
    assert classes.shifted == (offset != 0)
    assert classes.photos.tolist() == [
        by_column[column].count if column in by_column else 0 for column in range(len(classes.names))
    ]
    best = ranking.rank(ROWS, classes, SCALE, 3)
    assert best.scores == pytest.approx(np.take_along_axis(softmax(expected), best.columns, 1), abs=1e-4)
    cosines = np.take_along_axis(ROWS @ classes.embeddings.T, best.columns, 1)
    assert best.similarities == pytest.approx(cosines, abs=1e-6)


@pytest.mark.parametrize("trained", [None, TEXT_ALONE], ids=["no statistics", "alpha 0"])
@pytest.mark.parametrize("class_names", [(), ("ochre", "red")])
def test_without_statistics_text_answers_to_the_bit(
    trained: TrainedStatistics | None, class_names: tuple[str, ...]
) -> None:
    classes = class_set(class_names, trained=trained)
    plain = build_class_set(BANK, {name: (name,) for name in class_names}, False, embed)
    assert classes.terms is None and classes.branch == "text"
    ranked, expected = (ranking.rank(ROWS, chosen, SCALE, 4) for chosen in (classes, plain))
    for field in dataclasses.fields(ranked):
        assert np.array_equal(getattr(ranked, field.name), getattr(expected, field.name))


def test_trained_classes_keep_their_photos_as_long_as_they_keep_their_rows() -> None:
    """A renamed class is the same class; one that was embedded anew is another that is named only."""
    bank = rename(remove(BANK, ["green"]), "blue", "navy")
    bank = add(remove(bank, ["red"]), {"red": ("red wine",)}, unit_rows_of(1, 77))
    positions, numbers = TRAINED.positions_in(BANK, bank)
    assert [bank.names[position] for position in positions.tolist()] == ["navy"]
    assert [TRAINED.names[number] for number in numbers.tolist()] == ["blue"]
    statistics = TRAINED.for_bank(BANK, bank)
    assert statistics.names == ("navy",)
    assert statistics.statistics.means.tolist() == TRAINED.statistics.means[[2]].tolist()
    assert statistics.statistics.counts.tolist() == [5]
    classes = class_set(bank=bank)
    column = list(classes.names).index("navy")
    assert logits(classes)[:, column] == pytest.approx(logits(class_set())[:, 2], abs=1e-4)


def test_photos_under_another_spelling_or_an_alias_are_photos_of_the_class() -> None:
    bank = set_class(ClassBank.of(NAMES, BANK.embeddings, ENCODER_DIGEST), "grey", aliases=("ash",))
    once = class_set(bank=bank, shown={"grey": photos(7, 1).joined(photos(8, 3))})
    twice = class_set(("GREY",), bank, shown={"grey": photos(7, 1), "Grey ": photos(8, 3)})
    by_alias = class_set(bank=bank, shown={"ash": photos(7, 1), "grey": photos(8, 3)})
    for classes in (twice, by_alias):
        assert len(classes.names) == len(NAMES)
        assert np.sort(logits(classes), axis=1) == pytest.approx(np.sort(logits(once), axis=1), abs=1e-4)


@pytest.mark.parametrize(
    ("mean", "count"), [(np.ones(DIM, np.float32), 2), (np.full(DIM, np.nan, np.float32), 2), (ROWS[0], 0)]
)
def test_photos_that_cannot_be(mean: np.ndarray, count: int) -> None:
    with pytest.raises(InputError, match="photos"):
        ClassPhotos(mean, count)
    with pytest.raises(InputError, match="violet"):  # of another encoder
        class_set(shown={"violet": photos(dim=4)})


def test_a_bank_that_grew_has_the_logits_of_one_that_is_new() -> None:
    """Use again what is known of rows that an earlier bank had; here all but the last class."""
    composer = Composer(TRAINED, BANK, SCALE.factor)
    before = build_class_set(BANK, {}, False, embed, composer)
    grown = add(BANK, ["olive"], unit_rows_of(1, 41))
    after = build_class_set(grown, {}, False, embed, composer)
    assert np.array_equal(logits(after), logits(class_set(bank=grown)))
    assert np.array_equal(logits(after)[:, :-1], logits(before))


@pytest.mark.parametrize("shown", [NO_PHOTOS, {"teal": photos(3, 4)}], ids=["trained", "and photos"])
def test_means_and_distances_of_classes_by_hand(shown: Mapping[str, ClassPhotos]) -> None:
    chosen = class_set(("teal", "wine") if shown else (), shown=shown)
    terms, model = chosen.terms, TRAINED.statistics
    assert terms is not None
    columns = np.arange(len(chosen.names))[::-1]
    means, counts = terms.class_means(columns, chosen.rows(columns))
    by_column = evidence(chosen.names, TRAINED, shown)
    p, centre = model.precision.astype(np.float64), model.centre.astype(np.float64)
    for row, column in enumerate(columns.tolist()):
        mean = centre + model.slope * (chosen.rows([column])[0].astype(np.float64) - model.text_centre)
        item = by_column.get(column)
        if item is not None:
            mean = (item.count * item.mean + model.prior * mean) / (item.count + model.prior)
        assert counts[row] == (0 if item is None else item.count)
        np.testing.assert_allclose(means[row], mean, atol=1e-6)
        distances = terms.distances(ROWS, np.full(len(ROWS), column), np.repeat(chosen.rows([column]), len(ROWS), 0))
        expected = [(x - mean) @ p @ (x - mean) for x in ROWS.astype(np.float64)]
        np.testing.assert_allclose(distances, expected, rtol=1e-5)
