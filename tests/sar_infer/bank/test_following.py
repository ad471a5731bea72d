"""Carrying a bank of one encoder over to another: which changes follow."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.banks import photo_set, unit_row, unit_rows

from sar_infer.bank import ClassBank, ClassInfo, add, amend, remove, rename, rollback, set_photos_only, settled
from sar_infer.bank.edits import remove_photos
from sar_infer.bank.following import follow, photos_missing
from sar_infer.errors import BankError

OLD = ClassBank(("cat", "dog"), unit_rows(["cat", "dog"]), "a" * 64)
BASE = ClassBank(("cat", "owl"), unit_rows(["new cat", "new owl"]), "b" * 64)


def embed(groups: list[tuple[str, ...]]) -> np.ndarray:
    return unit_rows(["|".join(("new", *group)) for group in groups])


def rows(bank: ClassBank) -> dict[str, list[float]]:
    return dict(zip(bank.names, bank.embeddings.tolist(), strict=True))


def row(text: str) -> list[float]:
    found: list[float] = unit_row(text).tolist()
    return found


def test_added_classes_are_embedded_anew_and_the_rest_is_the_new_bundles() -> None:
    known = {"fox": ClassInfo(phrases=("a fox", "red fox"), threshold=0.5)}
    old = add(OLD, ["fox", "owl"], unit_rows(["fox", "owl"]), known)
    found = follow(old, BASE, embed, by="me")
    assert rows(found) == {"cat": row("new cat"), "owl": row("new owl"), "fox": row("new|a fox|red fox")}
    assert (found.encoder_digest, found.info["fox"].threshold) == (BASE.encoder_digest, 0.5)
    assert found.info["fox"].phrases == ("a fox", "red fox")
    assert {step.by for step in found.history} == {"me"}


def test_what_was_removed_stays_away_and_what_is_back_stays() -> None:
    assert tuple(follow(remove(OLD, ["cat"]), BASE, embed).names) == ("owl",)
    back = add(remove(OLD, ["cat"]), ["cat"], unit_rows(["cat"]))
    assert set(follow(back, BASE, embed).names) == {"cat", "owl"}


def test_settings_of_the_bundles_own_classes_follow_but_thresholds_of_the_new_one_stay() -> None:
    old = amend(OLD, {"cat": ClassInfo(background=True, threshold=0.3), "dog": ClassInfo(threshold=0.1)})
    found = follow(old, BASE, embed)
    assert tuple(found.names) == ("cat", "owl")
    assert (found.info["cat"].background, found.info["cat"].threshold) == (True, 0.3)
    own = dataclasses.replace(BASE, info={"cat": ClassInfo(threshold=0.7)})
    assert follow(old, own, embed).info["cat"].threshold == 0.7
    assert rows(follow(old, own, embed))["cat"] == row("new cat")


def test_a_bank_that_was_kept_gets_what_has_changed_since() -> None:
    old = add(OLD, ["fox"], unit_rows(["fox"]))
    kept = follow(old, BASE, embed)
    assert follow(old, BASE, embed, kept) is kept
    assert tuple(follow(add(old, ["emu"], unit_rows(["emu"])), BASE, embed, kept).names) == ("cat", "owl", "fox", "emu")
    assert tuple(follow(remove(old, ["fox"]), BASE, embed, kept).names) == ("cat", "owl")
    without = remove(kept, ["owl"])
    assert set(follow(old, BASE, embed, without).names) == {"cat", "owl", "fox"}
    renamed = follow(rename(old, "fox", "reynard"), BASE, embed, kept)
    assert set(renamed.names) == {"cat", "owl", "reynard"}


def test_other_phrases_are_embedded_anew_in_a_bank_that_was_kept() -> None:
    by_name = add(OLD, ["fox"], unit_rows(["fox"]))
    by_phrase = add(OLD, ["fox"], unit_rows(["a fox"]), {"fox": ClassInfo(phrases=("a fox",))})
    kept = follow(by_name, BASE, embed)
    other = follow(by_phrase, BASE, embed, kept)
    assert rows(other)["fox"] == row("new|a fox")
    assert rows(follow(by_name, BASE, embed, other))["fox"] == row("new|fox")


def test_a_class_of_the_bundle_that_was_renamed_stays_so_there_and_back() -> None:
    old = rename(rename(OLD, "cat", "puss"), "puss", "tom")
    new = follow(old, BASE, embed)
    assert rows(new) == {"tom": row("new cat"), "owl": row("new owl")}
    assert new.phrases("tom") == ("cat",)
    assert follow(old, BASE, embed, new) is new
    assert follow(new, OLD, embed, old) is old
    other = follow(rollback(old, 1), BASE, embed, new)
    assert set(other.names) == {"puss", "owl"}
    again = follow(rename(old, "tom", "cat"), BASE, embed, new)
    assert rows(again) == rows(BASE)
    assert tuple(follow(remove(old, ["tom"]), BASE, embed, new).names) == ("owl",)
    assert tuple(follow(remove(old, ["tom"]), BASE, embed).names) == ("owl",)
    anew = rename(old, "tom", "lion", unit_row("lion"))
    assert rows(follow(anew, BASE, embed)) == {"owl": row("new owl"), "lion": row("new|lion")}


def test_a_class_with_a_name_that_the_other_bundle_has_itself_keeps_it_there_and_back() -> None:
    old = rename(OLD, "cat", "owl")
    there = follow(old, BASE, embed)
    assert tuple(there.names) == ("cat", "owl")
    assert follow(there, OLD, embed, old) is old


@pytest.mark.parametrize("gone", [("cat", "owl"), ()])
def test_a_class_that_can_be_an_answer_has_to_be_left(gone: tuple[str, ...]) -> None:
    base = dataclasses.replace(BASE, info={name: ClassInfo(background=True) for name in BASE.names})
    old = remove(add(OLD, ["owl"], unit_rows(["owl"])), [*gone]) if gone else OLD
    with pytest.raises(BankError):
        follow(old, base, embed)
    assert "owl" in follow(OLD, BASE, embed).names


def test_photos_stay_behind_and_are_named() -> None:
    photos = {"cat": photo_set("p"), "SKU-1": photo_set("q", photos_only=True)}
    old = add(OLD, ["cat", "SKU-1"], unit_rows(["cat", "SKU-1"]), photos=photos)
    found = follow(old, BASE, embed)
    assert photos_missing(old, found) == ["cat", "SKU-1"]
    assert photos_missing(old, old) == photos_missing(found, old) == []
    assert found.photos["SKU-1"].photos_only
    assert "cat" not in found.photos


ALIKE = {"images": "1" * 64}
"""Provenance of banks whose encoders embed images in the same way."""


def alike(bank: ClassBank) -> ClassBank:
    return dataclasses.replace(bank, provenance=ALIKE)


def counted(bank: ClassBank) -> dict[str, int]:
    return {name: len(photos) for name, photos in bank.photos.items()}


def test_photos_follow_if_both_encoders_embed_images_alike() -> None:
    photos = {"Cat": photo_set("p"), "SKU-1": photo_set("q", "r", photos_only=True), "owl": photo_set("s")}
    old = add(alike(OLD), ["SKU-1", "owl"], unit_rows(["SKU-1", "owl"]), photos=photos)
    found = follow(old, alike(BASE), embed)
    assert counted(found) == {"cat": 1, "SKU-1": 2}  # the new bundle was trained on photos of owls
    assert found.photos["SKU-1"].seal == old.photos["SKU-1"].seal
    assert photos_missing(old, found) == ["owl"]
    assert follow(old, alike(BASE), embed, found) is found
    for other in (BASE, dataclasses.replace(BASE, provenance={"images": "2" * 64})):
        assert counted(follow(old, other, embed)) == {"SKU-1": 0}


def test_photos_of_the_new_bundle_stay() -> None:
    old = add(alike(OLD), ["cat"], unit_rows(["cat"]), photos={"cat": photo_set("p")})
    frozen = settled(add(alike(BASE), ["cat"], unit_rows(["new cat"]), photos={"cat": photo_set("q", "r")}))
    for before in (alike(OLD), old):
        assert follow(before, frozen, embed).photos["cat"].known == photo_set("q", "r").known


def test_photos_that_were_removed_meanwhile_are_removed_after_going_back() -> None:
    old = add(alike(OLD), ["fox"], unit_rows(["fox"]), photos={"fox": photo_set("p", "q")})
    there = follow(old, alike(BASE), embed)
    (digest,) = photo_set("p").known
    there = add(remove_photos(there, "fox", [digest]), ["cat"], unit_rows(["new cat"]), photos={"cat": photo_set("r")})
    back = follow(there, alike(OLD), embed, old)
    assert {name: photos.known for name, photos in back.photos.items()} == {
        "fox": photo_set("q").known,
        "cat": photo_set("r").known,
    }


@pytest.mark.parametrize("row", [None, unit_row("tod")])
def test_an_added_class_that_was_renamed_since_has_its_photos_after_going_back(row: np.ndarray | None) -> None:
    old = add(OLD, ["fox", "emu"], unit_rows(["fox", "emu"]), photos={"fox": photo_set("p", "q")})
    there = rename(rename(follow(old, BASE, embed), "fox", "reynard"), "reynard", "tod", row)
    here = follow(rename(there, "emu", "ratite"), OLD, embed, old)
    assert list(here.names) == ["cat", "dog", "tod", "ratite"]
    assert here.photos["tod"].seal == old.photos["fox"].seal
    assert here.phrases("tod") == (("fox",) if row is None else ("tod",))
    assert follow(rename(there, "tod", "vixen"), OLD, embed, here).photos.keys() == {"vixen"}
    assert "fox" in follow(rollback(there, 1), OLD, embed, old).photos


def test_a_class_of_the_bundle_that_was_renamed_and_then_embedded_anew_stays_as_it_is_there_and_back() -> None:
    phrases, photos = {"puss": ClassInfo(phrases=("a puss",))}, {"puss": photo_set("p")}
    old = add(rename(OLD, "cat", "puss"), ["puss"], unit_rows(["a puss"]), phrases, photos)
    assert follow(follow(old, BASE, embed), OLD, embed, old) is old


def test_a_class_that_is_an_answer_again_is_one_after_going_back() -> None:
    old = amend(OLD, {"cat": ClassInfo(background=True, threshold=0.5)})
    there = follow(old, BASE, embed)
    here = follow(amend(there, {"cat": ClassInfo()}), OLD, embed, old)
    assert here.info == {"cat": ClassInfo(threshold=0.5)}
    assert follow(there, OLD, embed, old) is old


def test_a_class_that_came_back_by_a_rollback_is_not_removed_again() -> None:
    gone = remove(OLD, ["dog"])
    there = follow(gone, BASE, embed)
    back = rollback(gone, 0)
    assert follow(follow(back, BASE, embed, there), OLD, embed, back) is back
    assert tuple(follow(there, OLD, embed).names) == ("cat",)


def test_that_a_name_means_something_after_all_is_known_after_going_back() -> None:
    old = set_photos_only(add(OLD, ["SKU-1"], unit_rows(["SKU-1"])), "SKU-1", photos_only=True)
    there = follow(old, BASE, embed)
    assert there.photos["SKU-1"].photos_only
    named = set_photos_only(there, "SKU-1", photos_only=False)
    assert "SKU-1" not in follow(named, OLD, embed, old).photos
    assert not follow(rename(named, "SKU-1", "mug"), OLD, embed, old).photos
    assert follow(there, OLD, embed, old) is old


def test_a_class_that_was_added_before_it_was_the_bundles_own_stays_removed_there_and_back() -> None:
    other = dataclasses.replace(OLD, encoder_digest="c" * 64)
    here = remove(follow(add(OLD, ["owl"], unit_rows(["owl"])), BASE, embed), ["owl"])
    there = follow(here, other, embed)
    assert set(there.names) == {"cat", "dog"}
    assert tuple(follow(there, BASE, embed, here).names) == ("cat",)
    assert tuple(follow(there, BASE, embed).names) == ("cat",)
