"""Photos of classes: their means, the sum that is left of many, and merges that count each photo once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.banks import DIM, content, example_bank, photo_set, unit_rows
from support.examples import examples

from sar_infer.bank import ClassBank, add, merge, remove
from sar_infer.bank.photos import MOST_ROWS, PhotoSet
from sar_infer.errors import BankError, ClassNameError, InputError

LABELS = st.lists(st.integers(0, 200).map(str), unique=True, max_size=100)


def photographed(**sets: PhotoSet) -> ClassBank:
    """Return a bank of cat, dog and fox with photos."""
    return add(example_bank(), [], unit_rows([]), photos=sets)


def same(one: PhotoSet, two: PhotoSet) -> bool:
    return one.identity == two.identity and np.allclose(one.mean, two.mean, rtol=0, atol=1e-14)


@settings(max_examples=examples(60))
@given(labels=LABELS, cut=st.integers(0, 100), data=st.data())
def test_neither_order_nor_steps_change_the_mean(labels: list[str], cut: int, data: st.DataObject) -> None:
    photos = photo_set(*labels)
    mean = np.mean(unit_rows(labels).astype(np.float64), axis=0) if labels else np.zeros(DIM)
    np.testing.assert_allclose(photos.mean, mean, rtol=1e-6, atol=1e-13)
    assert same(photo_set(*data.draw(st.permutations(labels))), photos)
    assert photos.with_added(photos.digests, photos.rows) is photos
    one = photographed(cat=photos)
    two = add(photographed(cat=photo_set(*labels[:cut])), [], unit_rows([]), photos={"cat": photo_set(*labels[cut:])})
    assert two.content_digest == one.content_digest
    assert same(two.photos_of("cat"), one.photos_of("cat"))
    np.testing.assert_array_equal(two.photos_of("cat").rows, unit_rows(labels[-MOST_ROWS:]))


@settings(max_examples=examples(60))
@given(labels=LABELS, more=LABELS)
def test_a_merge_counts_every_photo_once_and_removing_undoes_adding(labels: list[str], more: list[str]) -> None:
    ours, theirs = (photo_set(*some[:MOST_ROWS]) for some in (labels, more))
    both = ours.with_added(theirs.digests, theirs.rows)
    assert same(both, photo_set(*dict.fromkeys([*labels[:MOST_ROWS], *more[:MOST_ROWS]])))
    assert same(both.without(theirs.digest_set - ours.digest_set), ours)
    one, two = photographed(cat=ours), photographed(cat=theirs)
    for merged in (merge(one, two), merge(two, one)):
        assert same(merged.photos_of("cat"), both)


@pytest.mark.parametrize("ours", [None, photo_set("p")], ids=["no photos", "photos"])
def test_a_merge_settles_if_a_name_means_something(ours: PhotoSet | None) -> None:
    bank = photographed(**({} if ours is None else {"cat": ours}))
    other = photographed(cat=photo_set("q", photos_only=True))
    with pytest.raises(ClassNameError, match="different photos"):
        merge(bank, other)
    for conflict, photos_only in (("keep", False), ("take", True)):
        photos = merge(bank, other, conflict).photos["cat"]
        assert (photos.photos_only, len(photos)) == (photos_only, 1 + (ours is not None))


# ------------------------------------------------------------------------------------------------------------- folding
MANY = [f"m{number}" for number in range(MOST_ROWS + 2)]


def test_of_many_photos_the_oldest_are_a_sum() -> None:
    photos = photo_set(*MANY).limited()
    assert (len(photos), photos.folded) == (MOST_ROWS + 2, 2)
    np.testing.assert_allclose(photos.mean, unit_rows(MANY).mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert photos.with_added(photo_set("m0").digests, photo_set("m0").rows) is photos  # it is known all the same
    with pytest.raises(InputError, match="oldest 2"):
        photos.without(photo_set("m1").digest_set)
    with pytest.raises(InputError, match="not counted"):
        photos.without(photo_set("other").digest_set)
    rest = photos.without(photo_set("m2").digest_set)
    assert (len(rest), rest.folded) == (MOST_ROWS + 1, 2)


def test_sums_that_share_photos_are_a_conflict() -> None:
    one, other = photographed(cat=photo_set(*MANY)), photographed(cat=photo_set(*MANY[1:], "x", "y"))
    with pytest.raises(ClassNameError, match="different photos"):
        merge(one, other)
    with pytest.raises(BankError, match="sum"):
        add(one, [], unit_rows([]), photos={"cat": other.photos["cat"]})
    assert merge(one, other, "keep").photos["cat"].identity == one.photos["cat"].identity
    assert merge(one, other, "take").photos["cat"].identity == other.photos["cat"].identity
    labels = [f"{name}'" for name in MANY]
    both = merge(one, photographed(cat=photo_set(*labels))).photos["cat"]
    assert (len(both), len(both.rows)) == (2 * MOST_ROWS + 4, MOST_ROWS)
    np.testing.assert_allclose(both.mean, unit_rows([*MANY, *labels]).mean(axis=0, dtype=np.float64), rtol=1e-6)


def test_of_sums_the_one_that_has_all_photos_of_the_other_stays() -> None:
    one, other = photographed(cat=photo_set(*MANY)), photographed(cat=photo_set(*MANY, "x"))
    assert [bank.photos["cat"].folded for bank in (one, other)] == [2, 3]
    for merged in (merge(one, other), merge(other, one)):
        assert merged.photos["cat"].identity == other.photos["cat"].identity


# --------------------------------------------------------------------------------------------------------------- banks
def test_photos_come_with_a_new_class_or_to_one_that_is_there() -> None:
    photos = {"owl": photo_set("o1", "o2"), "CAT": photo_set("c1")}
    bank = add(example_bank(), ["owl"], unit_rows(["owl"]), photos=photos)
    bank = add(bank, [], unit_rows([]), photos={"Owl": photo_set("o2", "o3")})
    assert {name: len(one) for name, one in bank.photos.items()} == {"owl": 3, "cat": 1}
    assert bank.history[0].summary == "added 'owl', added 3 photos to 'owl', 'cat'"
    assert bank.history[1].summary == "added 1 photo to 'owl'"
    assert add(bank, [], unit_rows([]), photos={"owl": photo_set("o1")}) is bank
    with pytest.raises(ClassNameError, match="lion"):
        add(bank, [], unit_rows([]), photos={"lion": photo_set("l")})
    with pytest.raises(BankError, match="rows of photos"):
        add(bank, [], unit_rows([]), photos={"cat": photo_set("l", dim=DIM + 1)})


def test_a_bank_that_is_given_away_has_sums_and_no_photo(tmp_path: Path) -> None:
    bank = remove(photographed(cat=photo_set("c1", "c2"), dog=photo_set("d1")), ["cat"])
    settled = bank.settled()
    assert (set(settled.photos), settled.history, settled.photos["dog"].folded) == ({"dog"}, (), 1)
    assert same(settled.photos["dog"], bank.photos["dog"])
    settled.save(tmp_path / "b.safetensors")
    data = (tmp_path / "b.safetensors").read_bytes()
    assert not any(unit_rows([label]).tobytes() in data for label in ("c1", "c2", "d1"))
    assert content(ClassBank.verify(tmp_path / "b.safetensors")) == content(settled)


GOOD = photo_set("c1", "c2")


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        (dataclasses.replace(GOOD, rows=GOOD.rows * 2), "length 1"),
        (dataclasses.replace(GOOD, digests=GOOD.digests[[0, 0]]), "twice"),
        (dataclasses.replace(GOOD, older=GOOD.older + 1), "sum of 0 photos is larger"),
        (dataclasses.replace(GOOD, digests=GOOD.digests[:1]), "have 4 numbers"),
        (dataclasses.replace(photo_set(*MANY), older=np.zeros(DIM)), "66 rows of photos, at most 64"),
        *(
            (dataclasses.replace(GOOD.limited(0), older=np.full(DIM, number)), "sum of 2 photos is larger")
            for number in (1.1, -1e300, np.inf, np.nan)
        ),
    ],
)
def test_unsound_photos_are_refused(photos: PhotoSet, message: str) -> None:
    with pytest.raises(BankError, match=message):
        photos.check(DIM)
