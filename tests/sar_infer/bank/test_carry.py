"""A bank that goes to another bundle and back: names are embedded anew, and no photo is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.banks import DIM, content, fitted, photo_set, unit_row, unit_rows

from sar_infer.bank import (
    ClassBank,
    Images,
    add,
    add_photos,
    carry,
    fit,
    forget_photos,
    remove,
    rename,
    rollback,
    set_class,
)
from sar_infer.bank.file import read
from sar_infer.bank.steps import UNDO_STEPS
from sar_infer.errors import BankError, ClassNameError, InputError

SELF_TEST = tuple(unit_row("self-test").tolist())


def bundle(folder: Path, word: str, names: str = "abcd", images: Images | None = None) -> ClassBank:
    """The bank of a bundle whose encoder embeds names and, by default, images otherwise than others."""
    path = folder / f"{word}-bundle" / "bank.safetensors"
    path.parent.mkdir()
    ClassBank.of([*names], embed(word)([(name,) for name in names]), word * 64, images=images or Images(word)).save(
        path
    )
    return ClassBank.load(path).shared(path)


def embed(word: str):
    return lambda texts: unit_rows(f"{word}|{'+'.join(phrases)}" for phrases in texts)


def changed(base: ClassBank) -> ClassBank:
    """A bank with every kind of change."""
    word = base.encoder_digest[0]
    bank = add(base, {"owl": ("owl",), "emu": ("big bird", "emu")}, embed(word)([("owl",), ("big bird", "emu")]))
    bank = add_photos(bank, {"owl": photo_set("p", "q"), "b": photo_set("r")})
    bank = set_class(rename(bank, "a", "alpha"), "alpha", aliases=("first",), threshold=0.5)
    bank = add(remove(bank, ["c"]), {"d": ("a d", "the d")}, embed(word)([("a d", "the d")]))
    return set_class(bank, "emu", background=True)


def test_the_same_changes_stand_on_another_bundle(tmp_path: Path) -> None:
    old, new = bundle(tmp_path, "x"), bundle(tmp_path, "y", "zdba")
    changed(old).save(tmp_path / "shop")
    (tmp_path / "x-bundle" / "bank.safetensors").unlink()  # the old bundle need not be there
    bank, notes = carry(read(tmp_path / "shop", detached=True), new, embed("y"))
    assert bank.names == ("z", "d", "b", "alpha", "owl", "emu")
    assert notes == [
        "another image encoder: the photos of 2 classes wait in the file until the bank is carried back; to use them "
        "here, add them again"
    ]
    texts = [("z",), ("a d", "the d"), ("b",), ("a",), ("owl",), ("big bird", "emu")]
    np.testing.assert_array_equal(bank.embeddings, embed("y")(texts))
    assert (bank.entry("first").name, bank.entry("alpha").threshold, bank.background_names) == ("alpha", 0.5, {"emu"})
    assert bank.photos == {}
    assert bank.history[-1].action == "carry"


def test_photos_come_along_where_images_are_embedded_alike(tmp_path: Path) -> None:
    """By the digest of weights, prompts and preprocessing, else by the embedding of the self-test image."""
    old = bundle(tmp_path, "x", images=Images("one", SELF_TEST))
    near = tuple((np.array(SELF_TEST) * (1 - 1e-6)).tolist())
    for word, images in (("y", Images("one")), ("z", Images("another", near))):
        bank, notes = carry(changed(old), bundle(tmp_path, word, images=images), embed(word))
        assert notes == []
        assert {name: len(one.rows) for name, one in bank.photos.items()} == {"b": 1, "owl": 2}
    far = Images("another", tuple(unit_row("elsewhere").tolist()))
    bank, notes = carry(changed(old), bundle(tmp_path, "w", images=far), embed("w"))
    assert len(notes) == 1 and bank.photos == {}


@pytest.mark.parametrize(("images", "own"), [("x", ("own",)), ("y", ())])
def test_a_class_of_the_next_bundle_keeps_the_photos_that_it_has_there(
    tmp_path: Path, images: str, own: tuple[str, ...]
) -> None:
    """Whatever was changed of it on the bundle of before, which had fewer; the bank's own photos are added."""
    frozen = []
    for word, images_of, labels in (("x", "x", "pq"), ("y", images, "pqrs")):
        base = bundle(tmp_path, word, images=Images(images_of))
        path = tmp_path / f"{word}-frozen"
        add_photos(base, {"a": photo_set(*labels)}).settled().save(path)
        frozen.append(ClassBank.load(path).shared(path))
    bank = add_photos(set_class(frozen[0], "a", aliases=("first",)), {"a": photo_set("own")})
    bank, _ = carry(bank, frozen[1], embed("y"))
    assert bank.photos_of("first").digests == photo_set(*"pqrs", *own).digests
    expected = unit_rows([*"pqrs", *own]).astype(np.float64).sum(0)
    np.testing.assert_allclose(bank.photos_of("a").total, expected, atol=1e-9)


def test_carried_back_the_photos_return(tmp_path: Path) -> None:
    """Also after edits enough to fold all steps, and with the classes' names of now."""
    old, new = bundle(tmp_path, "x"), bundle(tmp_path, "y")
    bank, _ = carry(changed(old), new, embed("y"))
    bank = add_photos(rename(bank, "owl", "eagle owl"), {"b": photo_set("s")})
    for number in range(70):
        bank = set_class(bank, "b", threshold=number / 100)
    bank.save(tmp_path / "shop")
    back, _ = carry(read(tmp_path / "shop", detached=True), old, embed("x"))
    assert {name: one.digest_set for name, one in back.photos.items()} == {
        "b": photo_set("r").digest_set,
        "eagle owl": photo_set("p", "q").digest_set,
    }
    np.testing.assert_allclose(back.photos_of("eagle owl").total, unit_rows("pq").astype(float).sum(0), atol=1e-12)
    again, _ = carry(back, new, embed("y"))
    assert {name: one.digest_set for name, one in again.photos.items()} == {"b": photo_set("s").digest_set}


def test_a_carry_is_the_beginning_of_what_can_be_undone(tmp_path: Path) -> None:
    new = bundle(tmp_path, "y")
    before = fit(changed(bundle(tmp_path, "x")), {"slope": np.array(2.0)})
    bank, notes = carry(before, new, embed("y"))
    assert [note.split(";")[1] for note in notes[1:]] == [" run sar-bank fit again"]
    carried = len(before.history) + 1
    assert (fitted(bank), bank.log.line) == (None, [carried])
    with pytest.raises(InputError, match="cannot go back"):
        rollback(bank, carried - 1)
    later = add(bank, ["yak"], embed("y")([("yak",)]))
    assert content(rollback(later, carried)) == content(bank)


def test_the_bundles_own_class_stands_for_one_that_was_added(tmp_path: Path) -> None:
    new = bundle(tmp_path, "y", "abcdt")
    bank = add(bundle(tmp_path, "x"), ["T"], embed("x")([("T",)]))
    bank = set_class(rename(bank, "a", "e"), "T", aliases=("tee",))
    bank, notes = carry(bank, new, embed("y"))
    assert (bank.names, notes) == (("e", "b", "c", "d", "T"), [])
    np.testing.assert_array_equal(bank.entry("tee").embedding, new.entry("t").embedding)


def test_what_another_bundle_cannot_take_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    def refusing(texts):
        raise ClassNameError("too long")

    old, new = bundle(tmp_path, "x"), bundle(tmp_path, "y", "abcdh")
    with pytest.raises(ClassNameError, match="too long"):
        carry(add(old, ["owl"], embed("x")([("owl",)])), new, refusing)
    with pytest.raises(BankError, match="class name 'h' is there twice"):
        carry(rename(old, "a", "h"), new, embed("y"))
    with pytest.raises(BankError, match="alias 'h' is the name of a class"):
        carry(set_class(old, "a", aliases=("h",)), new, embed("y"))
    swapped = rename(rename(rename(old, "a", "x"), "b", "a"), "x", "b")
    assert carry(swapped, new, embed("y"))[0].names == ("b", "a", "c", "d", "h")


def test_a_bundle_without_an_answer_is_refused_and_its_own_changes_nothing(tmp_path: Path) -> None:
    old = bundle(tmp_path, "x", "ab")
    bank = remove(old, ["a"])
    assert carry(bank, old, embed("x"))[0] is bank
    with pytest.raises(BankError, match="no class"):
        carry(set_class(bank, "b", background=True), bundle(tmp_path, "y", "ab"), embed("y"))
    assert old.dim == DIM


def test_removals_reach_parked_photos(tmp_path: Path) -> None:
    """Of a class that was removed 64 steps ago, of a class that has no other photo, and one that is only in a sum."""
    old, new = bundle(tmp_path, "x"), bundle(tmp_path, "y")
    labels = [f"photo {number}" for number in range(70)]
    bank = add_photos(old, {"a": photo_set("p"), "b": photo_set("q"), "c": photo_set(*labels), "d": photo_set("d")})
    bank, _ = carry(bank, new, embed("y"))
    bank = forget_photos(bank, "b", photo_set("q").digests)
    bank = forget_photos(bank, "c", photo_set(labels[0]).digests)
    assert bank.history[-1].summary.startswith("removed 1 photo from 'c' and 5 older parked for another image encoder")
    bank = remove(bank, ["a"])
    for number in range(UNDO_STEPS):
        bank = set_class(bank, "d", threshold=number / 100)
    bank.save(tmp_path / "shop")
    data = (tmp_path / "shop").read_bytes()
    for label in ("p", "q", labels[0]):
        assert photo_set(label).digests[0] not in data
        assert unit_row(label).tobytes() not in data
    assert photo_set("d").digests[0] in data
    back, _ = carry(ClassBank.load(tmp_path / "shop", base=new), old, embed("x"))
    assert back.photos_of("c").digests == photo_set(*labels[6:]).digests  # those with embeddings of their own
    np.testing.assert_allclose(back.photos_of("c").total, unit_rows(labels[6:]).astype(np.float64).sum(0), atol=1e-9)
    assert set(back.photos) == {"c", "d"}


def test_embeddings_are_those_of_their_photos_after_removals(tmp_path: Path) -> None:
    """Also if another class stores the embedding of a photo that is only in a sum here."""
    labels = [f"photo {number}" for number in range(70)]
    bank = ClassBank.of([*"ab"], unit_rows("ab"), "x" * 64, images=Images("x"))
    add_photos(bank, {"a": photo_set(*labels), "b": photo_set(labels[3])}).save(tmp_path / "shop")
    bank = forget_photos(ClassBank.load(tmp_path / "shop"), "a", photo_set(*labels[60:63]).digests)
    recent = bank.photos_of("a").recent
    for label in labels:
        row = recent.get(photo_set(label).digests[0])
        assert row is None or np.array_equal(row, unit_row(label))
    assert len(recent) == 61


def test_an_alias_of_the_bank_leaves_no_other_class_with_it(tmp_path: Path) -> None:
    """The new bundle gives the alias to a class that the bank has changed too, and another to one that it has not."""
    old, new = bundle(tmp_path, "x"), bundle(tmp_path, "y")
    given = set_class(set_class(new, "b", aliases=("first", "bee")), "c", aliases=("second",))
    given.settled().save(tmp_path / "y-bundle" / "bank.safetensors")
    new = ClassBank.load(tmp_path / "y-bundle" / "bank.safetensors").shared(tmp_path / "y-bundle" / "bank.safetensors")
    bank = set_class(set_class(old, "a", aliases=("first", "second")), "b", threshold=0.5)
    carried, _ = carry(bank, new, embed("y"))
    assert {e.name: e.aliases for e in carried.special.values()} == {"a": ("first", "second"), "b": ("bee",)}
