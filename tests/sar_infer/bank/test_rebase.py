"""Changes of one bundle's bank, replayed on another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.banks import fitted, learned, learning, photo_set, unit_row, unit_rows

from sar_infer.bank import (
    ClassBank,
    ClassInfo,
    add,
    amend,
    fit,
    learn,
    merge,
    rebased,
    remove,
    rename,
    rollback,
    set_photos_only,
)
from sar_infer.bank.rebase import detached
from sar_infer.errors import BankError, ClassNameError

ALIKE = {"images": "1" * 64}
"""Provenance of banks whose encoders embed images in the same way."""


def base(encoder: str, *names: str, alike: bool = True, word: str = "", **more: ClassInfo) -> ClassBank:
    rows = unit_rows([f"{word}{name}" for name in names])
    bank = ClassBank(names, rows, encoder * 64, ALIKE if alike else {}, more)
    return bank.shared(Path("nowhere", encoder))


OLD, NEW = base("a", "cat", "dog"), base("b", "cat", "owl", word="new ")


def embed(groups: list[tuple[str, ...]]) -> np.ndarray:
    if ("long",) in groups:
        raise ClassNameError("class name 'long' is too long")
    return unit_rows(["|".join(("new", *group)) for group in groups])


def rows(bank: ClassBank) -> dict[str, list[float]]:
    return dict(zip(bank.names, bank.embeddings.tolist(), strict=True))


def row(text: str) -> list[float]:
    return unit_row(text).tolist()


def carried(bank: ClassBank, new: ClassBank = NEW) -> ClassBank:
    return rebased(bank, new, embed).bank


def test_added_classes_are_embedded_anew_and_the_rest_is_the_new_bundles() -> None:
    info = {"fox": ClassInfo(phrases=("a fox", "red fox"), threshold=0.5, aliases=("reynard",))}
    bank = carried(add(OLD, ["fox", "owl"], unit_rows(["fox", "owl"]), info))
    assert rows(bank) == {"cat": row("new cat"), "owl": row("new owl"), "fox": row("new|a fox|red fox")}
    assert (bank.encoder_digest, bank.info["fox"].threshold, bank.added_count) == (NEW.encoder_digest, 0.5, 1)
    assert bank.names[bank.lookup.find("Reynard")] == "fox"


def test_removals_renames_settings_and_aliases_are_taken_along() -> None:
    old = rename(remove(OLD, ["dog"]), "cat", "puss")
    old = amend(old, {"puss": ClassInfo(aliases=("kitty",), threshold=0.3, background=False)})
    bank = carried(old, base("b", "dog", "cat", "owl", word="new "))
    assert rows(bank) == {"puss": row("new cat"), "owl": row("new owl")}
    assert bank.info["puss"] == ClassInfo(phrases=("cat",), aliases=("kitty",), threshold=0.3)


def test_every_step_can_still_be_taken_back_and_what_was_undone_stays_undone() -> None:
    old = remove(rollback(add(add(OLD, ["fox"], unit_rows(["fox"])), ["emu"], unit_rows(["emu"])), 1), ["cat"])
    bank = carried(old)
    assert [step.summary for step in bank.history] == [step.summary for step in old.history]
    assert list(bank.names) == ["owl", "fox"]
    assert rows(rollback(bank, 1)) == {"cat": row("new cat"), "owl": row("new owl"), "fox": row("new|fox")}
    assert list(rollback(bank, 0).names) == list(NEW.names)
    back = carried(bank, OLD)  # and back, all the same
    assert (list(back.names), back.info) == (list(old.names), old.info)


def test_the_same_encoder_with_other_bytes_is_replayed_as_it_is() -> None:
    old = remove(add(OLD, ["fox"], unit_rows(["fox"])), ["dog"])
    more = base("a", "cat", "dog", "emu", word="again ")
    assert rows(carried(old, more)) == {"cat": row("again cat"), "emu": row("again emu"), "fox": row("fox")}


def test_photos_come_along_where_images_are_embedded_alike() -> None:
    photos = {"cat": photo_set("p"), "SKU-1": photo_set("q", "r", photos_only=True), "owl": photo_set("s")}
    old = add(OLD, ["SKU-1", "owl"], unit_rows(["SKU-1", "owl"]), photos=photos)
    result = rebased(old, NEW, embed)
    counts = {name: (len(one), one.photos_only) for name, one in result.bank.photos.items()}
    assert counts == {"cat": (1, False), "SKU-1": (2, True)}  # the new bundle was trained on photos of owls
    assert result.left_out == ("the bundle was trained on these classes, so their photos stay out: 'owl'",)
    result = rebased(old, base("b", "cat", "owl", alike=False, word="new "), embed)
    assert {name: (len(one), one.photos_only) for name, one in result.bank.photos.items()} == {"SKU-1": (0, True)}
    again = "another image encoder: add the photos of these classes again: 'cat', 'SKU-1', 'owl'"
    assert result.left_out == (again,)


def test_what_cannot_be_embedded_is_told_and_the_rest_is_there() -> None:
    old = add(OLD, ["fox", "long", "emu"], unit_rows(["fox", "long", "emu"]))
    result = rebased(old, NEW, embed)
    assert list(result.bank.names) == ["cat", "owl", "fox", "emu"]
    assert result.left_out == ("class 'long' cannot be embedded: class name 'long' is too long",)


def test_a_class_that_can_be_an_answer_has_to_be_left() -> None:
    with pytest.raises(BankError, match="none was added"):
        rebased(remove(add(OLD, ["owl"], unit_rows(["owl"])), ["cat", "dog", "owl"]), base("b", "cat"), embed)


def test_a_file_is_enough_without_its_base(tmp_path: Path) -> None:
    old = add(OLD, ["fox"], unit_rows(["fox"]), photos={"Cat": photo_set("p"), "fox": photo_set("q")})
    old = set_photos_only(rename(remove(old, ["dog"]), "cat", "tom"), "fox", photos_only=True)
    old.save(tmp_path / "b.safetensors")
    with pytest.raises(BankError):
        ClassBank.load(tmp_path / "b.safetensors")  # there is no bundle at ``nowhere``
    result = rebased(detached(tmp_path / "b.safetensors"), NEW, embed)
    assert rows(result.bank) == {"tom": row("new cat"), "owl": row("new owl"), "fox": row("new|fox")}
    assert {name: len(one) for name, one in result.bank.photos.items()} == {"tom": 1, "fox": 1}
    assert result.left_out == ()
    assert result.bank.content_digest == carried(old).content_digest


def test_a_merge_takes_removals_only_if_asked() -> None:
    ours = add(OLD, ["emu"], unit_rows(["emu"]))
    theirs = add(remove(OLD, ["dog"]), ["fox"], unit_rows(["fox"]))
    assert list(merge(ours, theirs).names) == ["cat", "dog", "emu", "fox"]
    assert list(merge(ours, theirs, removals=True).names) == ["cat", "emu", "fox"]


def test_fitted_statistics_stay_with_their_encoder_and_learned_sums_with_their_images() -> None:
    old = learn(
        fit(add(OLD, ["fox"], unit_rows(["fox"])), {"slope": np.array(0.5)}), learning({"fox": "f", "dog": "d"})
    )
    again = rebased(old, base("a", "cat", "dog", "emu"), embed)
    assert (fitted(again.bank), learned(again.bank), again.left_out) == (fitted(old), learned(old), ())
    alike = rebased(old, NEW, embed)  # where there is no dog
    sums, translation, *rest = learned(old)
    assert learned(alike.bank) == ({"fox": sums["fox"]}, translation, *rest)
    assert alike.bank.fitted is None
    assert alike.left_out == ("the class statistics were fitted with the other encoder's rows; fit them again",)
    other = rebased(old, base("b", "cat", alike=False), embed)
    assert (other.bank.fitted, other.bank.learned) == (None, None)
    assert "has to be learned again" in other.left_out[-1]


def test_a_file_that_stands_alone_takes_along_what_it_has_learned(tmp_path: Path) -> None:
    learn(add(OLD, ["fox"], unit_rows(["fox"])), learning({"fox": "f"})).settled().save(tmp_path / "b")
    result = rebased(detached(tmp_path / "b"), NEW, embed)
    assert learned(result.bank) == learned(ClassBank.load(tmp_path / "b"))
    moved = ClassBank.load(tmp_path / "b", base=OLD)
    assert moved.base is OLD.base
    assert learned(moved) == learned(result.bank)
