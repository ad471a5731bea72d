"""Photos of classes: their means, what is kept of many, and the edits that change them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.banks import DIM, content, example_bank, photo_set, unit_rows
from support.examples import examples

from sar_infer.bank import (
    ClassBank,
    add,
    diff,
    merge,
    old_files,
    remove,
    remove_photos,
    rename,
    rollback,
    set_photos_only,
)
from sar_infer.bank.compare import PhotoChange
from sar_infer.bank.photos import MOST_ROWS, PhotoSet
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.storage.tensor_file import TensorFile

LABELS = st.lists(st.integers(0, 200).map(str), unique=True, max_size=100)


def photographed(**photos: str) -> ClassBank:
    """Return cat, dog and fox with photos, a word a photo."""
    none = np.empty((0, DIM), np.float32)
    return add(example_bank(), [], none, photos={name: photo_set(*words.split()) for name, words in photos.items()})


def numbers(photos: PhotoSet) -> tuple[object, int]:
    return pytest.approx(photos.mean, abs=1e-14), len(photos)


def same(one: PhotoSet, two: PhotoSet) -> bool:
    return one.identity == two.identity and np.allclose(one.mean, two.mean, rtol=0, atol=1e-14)


# ---------------------------------------------------------------------------------------------------------------- sums
@settings(max_examples=examples(60))
@given(labels=LABELS, data=st.data())
def test_the_order_of_photos_does_not_change_the_mean(labels: list[str], data: st.DataObject) -> None:
    other = data.draw(st.permutations(labels))
    assert same(photo_set(*labels), photo_set(*other))


@settings(max_examples=examples(60))
@given(labels=LABELS, cut=st.integers(0, 100))
def test_two_steps_are_one(labels: list[str], cut: int) -> None:
    first, second, none = photo_set(*labels[:cut]), photo_set(*labels[cut:]), unit_rows([])
    one = add(example_bank(), [], none, photos={"cat": photo_set(*labels)})
    two = add(add(example_bank(), [], none, photos={"cat": first}), [], none, photos={"cat": second})
    assert two.content_digest == one.content_digest
    assert same(two.photos_of("cat"), one.photos_of("cat"))
    np.testing.assert_array_equal(two.photos_of("cat").rows, one.photos_of("cat").rows)


@settings(max_examples=examples(60))
@given(labels=LABELS)
def test_the_mean_is_that_of_a_float64_reference(labels: list[str]) -> None:
    wanted = np.mean(unit_rows(labels).astype(np.float64), axis=0) if labels else np.zeros(DIM)
    np.testing.assert_allclose(photo_set(*labels).mean, wanted, rtol=1e-6, atol=1e-13)


@settings(max_examples=examples(60))
@given(labels=LABELS, more=LABELS)
def test_removing_undoes_adding(labels: list[str], more: list[str]) -> None:
    before, added = photo_set(*labels[:40]), photo_set(*more[:20])
    fresh = added.digest_set - before.digest_set
    both = before.with_added(added.digests, added.rows)
    assert same(both.without(fresh), before)
    assert len(both) == len(before) + len(fresh)


@settings(max_examples=examples(60))
@given(labels=LABELS, more=LABELS)
def test_a_merge_counts_every_photo_once(labels: list[str], more: list[str]) -> None:
    ours, theirs = (photo_set(*some[:MOST_ROWS]) for some in (labels, more))
    if not ours or not theirs:
        return
    one = add(example_bank(), [], unit_rows([]), photos={"cat": ours})
    two = add(example_bank(), [], unit_rows([]), photos={"cat": theirs})
    both = photo_set(*dict.fromkeys([*labels[:MOST_ROWS], *more[:MOST_ROWS]]))
    assert same(merge(one, two).photos["cat"], both)
    assert same(merge(two, one).photos["cat"], both)


@pytest.mark.parametrize("ours", [None, photo_set("p")], ids=["no photos", "photos"])
def test_a_merge_settles_whether_a_name_means_something(ours: PhotoSet | None) -> None:
    bank = add(example_bank(), [], unit_rows([]), photos={} if ours is None else {"cat": ours})
    other = add(example_bank(), [], unit_rows([]), photos={"cat": photo_set("q", photos_only=True)})
    with pytest.raises(ClassNameError, match="different photos"):
        merge(bank, other)
    for conflict, photos_only in (("keep", False), ("take", True)):
        found = merge(bank, other, conflict).photos["cat"]
        assert (found.photos_only, len(found)) == (photos_only, 1 + (ours is not None))


def test_a_photo_that_comes_twice_counts_once() -> None:
    once = photo_set("p", "q")
    assert once.with_added(once.digests, once.rows) is once
    assert photo_set("p", "q", "p").identity == once.identity


# ------------------------------------------------------------------------------------------------------------- folding
def test_the_oldest_fold_into_the_sum() -> None:
    labels = [str(number) for number in range(MOST_ROWS + 6)]
    photos = photo_set(*labels).limited()
    assert (len(photos), photos.folded, len(photos.rows)) == (MOST_ROWS + 6, 6, MOST_ROWS)
    np.testing.assert_allclose(photos.mean, unit_rows(labels).mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_array_equal(photos.rows, unit_rows(labels[6:]))
    assert photos.with_added(photo_set("0").digests, photo_set("0").rows) is photos  # it is known all the same
    with pytest.raises(InputError, match="oldest 6"):
        photos.without(photo_set("3").digest_set)
    rest = photos.without(photo_set("6").digest_set)
    assert (len(rest), rest.folded) == (MOST_ROWS + 5, 6)


def test_folded_photos_of_two_banks_that_overlap_are_a_conflict() -> None:
    many = [f"m{number}" for number in range(MOST_ROWS + 2)]
    one = add(example_bank(), [], unit_rows([]), photos={"cat": photo_set(*many)})
    other = add(example_bank(), [], unit_rows([]), photos={"cat": photo_set(*many[1:], "x", "y")})
    apart = add(example_bank(), [], unit_rows([]), photos={"cat": photo_set(*(f"{name}'" for name in many))})
    with pytest.raises(ClassNameError, match="different photos"):
        merge(one, other)
    with pytest.raises(BankError, match="sum"):
        add(one, [], unit_rows([]), photos={"cat": other.photos["cat"]})
    assert merge(one, other, "keep").photos["cat"].identity == one.photos["cat"].identity
    assert merge(one, other, "take").photos["cat"].identity == other.photos["cat"].identity
    both = merge(one, apart).photos["cat"]
    wanted = unit_rows([*many, *(f"{name}'" for name in many)]).mean(axis=0, dtype=np.float64)
    assert (len(both), len(both.rows)) == (2 * MOST_ROWS + 4, MOST_ROWS)
    np.testing.assert_allclose(both.mean, wanted, rtol=1e-6)


def test_of_folded_photos_the_bank_that_has_all_of_the_others_wins() -> None:
    many = [f"m{number}" for number in range(MOST_ROWS + 2)]
    one, other = (
        add(example_bank(), [], unit_rows([]), photos={"cat": photo_set(*labels)}) for labels in (many, [*many, "x"])
    )
    assert [found.photos["cat"].folded for found in (one, other)] == [2, 3]
    for merged in (merge(one, other), merge(other, one)):
        assert merged.photos["cat"].identity == other.photos["cat"].identity


# --------------------------------------------------------------------------------------------------------------- edits
def test_photos_come_with_a_new_class_or_to_one_that_is_there() -> None:
    photos = {"owl": photo_set("o1", "o2"), "CAT": photo_set("c1"), "Owl": photo_set("o2", "o3")}
    bank = add(example_bank(), ["owl"], unit_rows(["owl"]), photos={k: v for k, v in photos.items() if k != "Owl"})
    bank = add(bank, [], unit_rows([]), photos={"Owl": photos["Owl"]})
    assert {name: len(found) for name, found in bank.photos.items()} == {"owl": 3, "cat": 1}
    assert bank.history[0].summary == "added 'owl', added 3 photos to 'owl', 'cat'"
    assert bank.history[1].summary == "added 1 photo to 'owl'"
    assert bank.info.get("cat") is None
    np.testing.assert_array_equal(bank.embeddings[0], example_bank().embeddings[0])
    assert add(bank, [], unit_rows([]), photos={"owl": photo_set("o1")}) is bank
    with pytest.raises(ClassNameError, match="lion"):
        add(bank, [], unit_rows([]), photos={"lion": photo_set("l")})
    with pytest.raises(BankError, match="rows of photos"):
        add(bank, [], unit_rows([]), photos={"cat": photo_set("l", dim=DIM + 1)})


def test_photos_follow_their_class() -> None:
    bank = photographed(cat="c1 c2", dog="d1")
    renamed = rename(bank, "cat", "tabby")
    assert renamed.photos["tabby"].identity == bank.photos["cat"].identity
    gone = remove(renamed, ["tabby"])
    assert set(gone.photos) == {"dog"}
    fewer = remove_photos(gone, "dog", photo_set("d1").digest_set)
    assert not fewer.photos
    assert fewer.content_digest == remove(example_bank(), ["cat"]).content_digest
    for step, state in enumerate((bank, renamed, gone), start=1):
        assert content(rollback(fewer, step)) == content(state)


def test_photos_only_is_said_and_taken_back() -> None:
    bank = set_photos_only(photographed(cat="c1"), "cat", photos_only=True)
    assert bank.photos["cat"].photos_only
    assert bank.content_digest != photographed(cat="c1").content_digest
    assert set_photos_only(bank, "cat", photos_only=True) is bank
    assert not rollback(bank, 1).photos["cat"].photos_only
    waiting = set_photos_only(example_bank(), "dog", photos_only=True)
    assert (len(waiting.photos["dog"]), waiting.photos["dog"].photos_only) == (0, True)
    assert add(waiting, [], unit_rows([]), photos={"dog": photo_set("d")}).photos["dog"].photos_only


def test_differences_of_photos_are_told_by_number() -> None:
    one, two = photographed(cat="c1 c2", dog="d"), photographed(cat="c2 c3 c4", dog="d")
    assert diff(one, two).photos == {"cat": PhotoChange(2, 1)}
    assert diff(one, set_photos_only(one, "cat", photos_only=True)).photos == {
        "cat": PhotoChange(0, 0, photos_only=True)
    }
    assert not diff(photographed(cat="c1 c2"), photographed(cat="c2 c1"))


# ---------------------------------------------------------------------------------------------------------------- file
def test_only_a_bank_with_photos_or_a_history_needs_a_newer_reader(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    bank = photographed(cat="c1 c2")
    for state, reader in ((example_bank(), "1"), (bank, "4"), (rollback(bank, 0), "4"), (bank.settled(), "4")):
        state.save(path)
        with path.open("rb") as stream:
            assert TensorFile(stream).metadata["min_reader"] == reader
        back = ClassBank.verify(path)
        assert (content(back), back.content_digest) == (content(state), state.content_digest)


def test_a_frozen_bank_keeps_sums_and_nothing_of_its_history(tmp_path: Path) -> None:
    bank = remove(photographed(cat="c1 c2", dog="d1"), ["cat"])
    frozen = bank.settled()
    assert (set(frozen.photos), frozen.history) == ({"dog"}, ())
    assert same(frozen.photos["dog"], bank.photos["dog"])
    assert frozen.photos["dog"].folded == 1
    frozen.save(tmp_path / "b.safetensors")
    data = (tmp_path / "b.safetensors").read_bytes()
    assert not any(unit_rows([label]).tobytes() in data for label in ("c1", "c2", "d1"))
    again = ClassBank.verify(tmp_path / "b.safetensors")
    assert (content(again), again.content_digest) == (content(frozen), frozen.content_digest)


def damaged(path: Path, row: bytes) -> None:
    """Change the first bytes of a photo's row in a file."""
    data = path.read_bytes()
    assert data.count(row) == 1
    path.write_bytes(data.replace(row, bytes([row[0] ^ 1]) + row[1:]))


def test_every_byte_of_a_photo_is_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.safetensors"
    bank = photographed(cat="c1 c2", dog="d1")
    for state in (bank, ClassBank(bank.names, bank.embeddings, bank.encoder_digest, photos=bank.photos)):
        with monkeypatch.context() as patch:
            state.save(path)
            damaged(path, unit_rows(["c2"]).tobytes())
            with pytest.raises(BankError, match="does not match its digest"):
                ClassBank.load(path)
            patch.setattr(old_files, "MAPPED_BYTES", 1)
            patch.setattr("sar_infer.bank.file.MAPPED_BYTES", 1)
            mapped = ClassBank.load(path)  # large tensors are checked by verify alone
            assert mapped.content_digest == state.content_digest
            with pytest.raises(BankError, match="does not match its digest"):
                ClassBank.verify(path)


def test_unsound_photos_are_refused() -> None:
    good = photo_set("c1", "c2")
    for changes, message in (
        ({"rows": good.rows * 2}, "length 1"),
        ({"digests": good.digests[[0, 0]]}, "twice"),
        ({"older": good.older + 1}, "sum"),
    ):
        with pytest.raises(BankError, match=message):
            dataclasses.replace(good, **changes).check(DIM)
    with pytest.raises(BankError, match="lion"):
        ClassBank(("cat",), unit_rows(["cat"]), "a" * 64, photos={"lion": good})


@pytest.mark.parametrize("number", [1.1, -1e300, np.inf, np.nan])
def test_a_sum_that_no_photos_have_is_refused(number: float) -> None:
    """Nobody can add up photos of which only the sum is kept."""
    folded = dataclasses.replace(photo_set("c1").limited(0), older=np.full(DIM, number))
    with pytest.raises(BankError, match="is larger"):
        add(example_bank(), [], unit_rows([]), photos={"cat": folded})
