"""Classes whose photos the bank has: logits by the formula in float64, whichever way the photos came."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import DIM, ENCODER_DIGEST
from support.examples import examples
from support.trained import apart, by_hand, evidence, example_statistics, photo_set_of, unit_rows_of

from sar_infer.bank import ClassBank, PhotoSet, add
from sar_infer.classifiers.composition import Composer
from sar_infer.classifiers.trained_statistics import ClassPhotos, TrainedStatistics
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet, build_class_set, with_photos, without_counted
from sar_infer.classify.ranking import Scale

SCALE = Scale(factor=20.0)
NAMES = ("red", "green", "blue", "grey", "teal", "SKU-1")
TRAINED = example_statistics(NAMES[:3])
ROWS = unit_rows_of(7, 9)
OWN = ClassBank.of(NAMES, unit_rows_of(len(NAMES), 3), ENCODER_DIGEST)


def with_sets(photos: dict[str, PhotoSet]) -> ClassBank:
    return add(OWN, [], np.empty((0, DIM), np.float32), photos=photos)


def class_set(
    bank: ClassBank, trained: TrainedStatistics | None = TRAINED, photos: dict[str, PhotoSet] | None = None
) -> ClassSet:
    names, counted = with_photos({}, without_counted(bank, photos or {}), DIM)
    composer = Composer(trained, OWN, SCALE.factor)
    return build_class_set(bank, names, False, lambda groups: unit_rows_of(len(groups), 0), composer, counted)


@settings(max_examples=examples(40))
@given(photos=st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 5), st.booleans()), max_size=4))
def test_photos_of_the_bank_and_of_the_call_count_the_same(photos: dict[str, tuple[int, bool]]) -> None:
    """One that is of photos only, and waits for its first, is where no name points."""
    sets = {name: photo_set_of(count, len(name), photos_only=only) for name, (count, only) in photos.items()}
    bank = with_sets(sets)
    by_column = evidence(NAMES, TRAINED, {name: ClassPhotos.of(one) for name, one in bank.photos.items()})
    expected = by_hand(TRAINED.statistics, SCALE.factor, ROWS, OWN.embeddings, by_column)
    classes = class_set(bank)
    assert apart(ranking.logits(ROWS, classes, SCALE), expected) < 1e-6
    flags = [] if classes.photographed is None else classes.photographed.tolist()
    assert flags == ([name in bank.photos for name in NAMES] if bank.photos else [])
    both = class_set(bank, photos=sets)  # what is counted does not count again
    columns = [both.names.index(name) for name in NAMES]
    assert apart(ranking.logits(ROWS, both, SCALE)[:, columns], expected) < 1e-6


def test_a_photo_under_two_spellings_of_a_class_counts_once() -> None:
    bank, one, more = with_sets({"red": photo_set_of(3, 1)}), photo_set_of(2, 7), photo_set_of(3, 8)
    both = PhotoSet.of(np.concatenate([one.digests, more.digests]), np.concatenate([one.rows, more.rows]))
    for name in ("Red", "violet"):
        twice = class_set(bank, photos={name.title(): both, f" {name.lower()}": one})
        once = class_set(bank, photos={name.title(): both})
        assert twice.terms is not None and once.terms is not None
        np.testing.assert_array_equal(twice.terms.weights, once.terms.weights)


def test_a_bank_without_photos_is_ranked_by_text() -> None:
    assert class_set(OWN, None).terms is None
    assert class_set(OWN, None).photographed is None
