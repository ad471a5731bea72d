"""Classes whose photos the bank has: logits by the formula in float64, whichever way the photos came."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import DIM, ENCODER_DIGEST
from support.examples import examples
from support.trained import by_hand, example_statistics

from sar_infer.bank import ClassBank, PhotoSet, add
from sar_infer.classifiers.composition import Composer
from sar_infer.classifiers.statistics import Statistics
from sar_infer.classifiers.trained_statistics import ClassPhotos, TrainedStatistics
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet, build_class_set, with_photos, without_counted
from sar_infer.classify.ranking import Scale
from sar_infer.encoders.encoders import unit_rows

SCALE = Scale(factor=20.0)
NAMES = ("red", "green", "blue", "grey", "teal", "SKU-1")
TRAINED = example_statistics(NAMES[:3])


def some_rows(count: int, seed: int) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32))


def some_photos(count: int, seed: int, *, photos_only: bool = False) -> PhotoSet:
    rows = some_rows(count, seed)
    digests = np.array([np.frombuffer(hashlib.sha256(row.tobytes()).digest(), np.uint8) for row in rows], np.uint8)
    return PhotoSet.of(digests.reshape(-1, 32), rows, photos_only=photos_only)


ROWS = some_rows(7, 9)
OWN = ClassBank(NAMES, some_rows(len(NAMES), 3), ENCODER_DIGEST)
PHOTOS = {"red": some_photos(3, 1), "teal": some_photos(2, 2), "SKU-1": some_photos(4, 3, photos_only=True)}
BANK = add(OWN, [], np.empty((0, DIM), np.float32), photos=PHOTOS)


def class_set(
    bank: ClassBank, trained: TrainedStatistics | None, photos: dict[str, PhotoSet] | None = None
) -> ClassSet:
    names, found = with_photos({}, without_counted(bank, photos or {}), DIM)
    return build_class_set(
        bank, names, False, lambda groups: some_rows(len(groups), 0), Composer(trained, OWN, 20.0), found
    )


def known(trained: TrainedStatistics | None, photos: dict[str, PhotoSet]) -> dict[int, ClassPhotos]:
    found = {NAMES.index(name): ClassPhotos.of(one) for name, one in photos.items() if one}
    for place, name in enumerate(() if trained is None else trained.names):
        model, column = TRAINED.statistics, NAMES.index(name)
        own = ClassPhotos(model.means[place], int(model.counts[place]))
        found[column] = own.joined(found[column]) if column in found else own
    return found


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference but for one constant for each image, relative to the largest logit."""
    differences = found - expected
    differences = differences - differences.mean(axis=1, keepdims=True)
    return float(np.abs(differences).max() / np.abs(expected).max())


def test_a_photo_under_two_spellings_of_a_class_counts_once() -> None:
    one, more = some_photos(2, 7), some_photos(3, 8)
    both = PhotoSet.of(np.concatenate([one.digests, more.digests]), np.concatenate([one.rows, more.rows]))
    for name in ("Red", "violet"):
        spelled = {name.title(): both, f" {name.lower()}": one}
        found, wanted = class_set(BANK, TRAINED, spelled), class_set(BANK, TRAINED, {name.title(): both})
        assert found.terms is not None and wanted.terms is not None
        np.testing.assert_array_equal(found.terms.weights, wanted.terms.weights)


@pytest.mark.parametrize("trained", [TRAINED, None], ids=["statistics", "defaults"])
def test_logits_are_those_of_the_formula(trained: TrainedStatistics | None) -> None:
    classes = class_set(BANK, trained)
    model = Statistics.default(DIM) if trained is None else trained.statistics
    expected = by_hand(model, SCALE.factor, ROWS, OWN.embeddings, known(trained, PHOTOS))
    assert apart(ranking.logits(ROWS, classes, SCALE), expected) < 1e-6
    assert classes.photographed is not None
    assert [name for name, has in zip(NAMES, classes.photographed, strict=True) if has] == [*PHOTOS]


@settings(max_examples=examples(40))
@given(photos=st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 5), st.booleans()), max_size=4))
def test_photos_of_the_bank_and_of_the_call_count_the_same(photos: dict[str, tuple[int, bool]]) -> None:
    sets = {name: some_photos(count, len(name), photos_only=only) for name, (count, only) in photos.items()}
    bank = add(OWN, [], np.empty((0, DIM), np.float32), photos=sets)
    found = ranking.logits(ROWS, class_set(bank, TRAINED), SCALE)
    expected = by_hand(TRAINED.statistics, SCALE.factor, ROWS, OWN.embeddings, known(TRAINED, sets))
    assert apart(found, expected) < 1e-6
    both = class_set(bank, TRAINED, sets)  # what is counted does not count again
    columns = [both.names.index(name) for name in NAMES]
    assert apart(ranking.logits(ROWS, both, SCALE)[:, columns], expected) < 1e-6


def test_a_class_that_waits_for_its_first_photo_is_where_no_name_points() -> None:
    waiting = add(OWN, [], np.empty((0, DIM), np.float32), photos={"teal": some_photos(0, 1, photos_only=True)})
    model = TRAINED.statistics
    expected = by_hand(model, SCALE.factor, ROWS, OWN.embeddings, known(TRAINED, {}))
    row = model.text_centre[np.newaxis]
    expected[:, 4] = by_hand(model, SCALE.factor, ROWS, row, {})[:, 0]
    assert apart(ranking.logits(ROWS, class_set(waiting, TRAINED), SCALE), expected) < 1e-6


def test_a_bank_without_photos_is_ranked_as_before() -> None:
    assert class_set(OWN, None).terms is None
    assert class_set(OWN, None).photographed is None
