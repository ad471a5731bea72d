from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.banks import learning, photo_set
from support.bundles import DIM, ENCODER_DIGEST, name_rows, write_bundle
from support.trained import apart, by_hand, example_trained, known_of, photo_set_of, unit_rows_of

from sar_infer import Classifier
from sar_infer.bank import ClassBank, add, add_photos, calibrate, fit, learn, remove, rename, set_class
from sar_infer.bank.learned import BankCalibration
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.class_model.trained import TrainedClasses
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet, build_class_set
from sar_infer.classify.composer import Composer
from sar_infer.errors import InputError
from sar_infer.text.names import phrases_by_name

BANK = ClassBank.of(("Cat", "dog", "fox"), np.eye(3, dtype=np.float32), "e")
PLAIN = Composer(None, BANK, 20.0)


class Embed:
    """Gives -1 for the first group of phrases, -2 for the second, and remembers what it encoded."""

    def __init__(self) -> None:
        self.encoded: list[tuple[str, ...]] = []

    def __call__(self, groups: Sequence[tuple[str, ...]]) -> np.ndarray:
        self.encoded += groups
        return -np.arange(1, len(groups) + 1, dtype=np.float32)[:, None] * np.ones(3, np.float32)


def sources(classes: ClassSet) -> list[str]:
    return [classes.source(column) for column in range(len(classes.names))]


def built(classes, only: bool = False):
    embed = Embed()
    result = build_class_set(BANK, phrases_by_name(classes), only, embed, PLAIN, {})
    rows = [int(row @ [1, 2, 3]) if row.max() > 0 else int(row[0]) for row in result.embeddings]
    return list(zip(result.names, sources(result), rows, strict=True)), embed.encoded


CAT, DOG, FOX = ("Cat", "bank", 1), ("dog", "bank", 2), ("fox", "bank", 3)


@pytest.mark.parametrize(
    ("class_names", "only", "classes", "encoded"),
    [
        (None, False, [CAT, DOG, FOX], []),
        (
            ["owl", "emu"],
            False,
            [CAT, DOG, FOX, ("owl", "extended", -1), ("emu", "extended", -2)],
            [("owl",), ("emu",)],
        ),
        (["dog", "owl"], False, [CAT, FOX, DOG, ("owl", "extended", -1)], [("owl",)]),
        ([" cat"], True, [(" cat", "bank", 1)], []),
        (["fox", "owl"], True, [FOX, ("owl", "extended", -1)], [("owl",)]),
        ({"dog": ["dog", "hound"], "fox": "fox"}, False, [CAT, ("dog", "extended", -1), FOX], [("dog", "hound")]),
    ],
    ids=["the bank", "new names", "a name of the bank", "case and space", "only", "phrases"],
)
def test_classes_are_the_banks_and_those_of_the_call(class_names, only: bool, classes, encoded) -> None:
    assert built(class_names, only) == (classes, encoded)


def test_no_class_at_all() -> None:
    with pytest.raises(InputError):
        built([], only=True)
    empty = ClassBank.of((), np.empty((0, 3), np.float32), "e")
    with pytest.raises(InputError):
        build_class_set(empty, {}, False, Embed(), PLAIN, {})


# ------------------------------------------------------------------------------------------ what is known of a class
KNOWN = ClassBank.of(("Cat", "dog", "wall"), np.eye(3, dtype=np.float32), "e")
KNOWN = set_class(set_class(KNOWN, "Cat", aliases=("puss in  boots",), threshold=0.5), "wall", background=True)


def of_known(classes, only: bool = False) -> ClassSet:
    return build_class_set(KNOWN, phrases_by_name(classes), only, Embed(), PLAIN, {})


def test_an_alias_takes_the_row_of_its_class_and_its_place() -> None:
    classes = of_known(["Puss in Boots", "owl"])
    assert classes.names == ("dog", "wall", "Puss in Boots", "owl")
    assert sources(classes) == ["bank", "bank", "bank", "extended"]
    np.testing.assert_array_equal(classes.embeddings[2], KNOWN.embeddings[0])


@pytest.mark.parametrize("only", [False, True])
def test_of_several_names_of_a_class_the_first_stands(only: bool) -> None:
    classes = of_known(["Puss in Boots", "dog", "cat"], only)
    assert classes.names == (*([] if only else ["wall"]), "Puss in Boots", "dog")
    np.testing.assert_array_equal(classes.thresholds[-2:], np.float32([0.5, np.nan]))


def test_a_name_of_a_class_that_is_given_with_phrases_stands_for_it_no_more() -> None:
    assert of_known({"Puss in Boots": "Puss in Boots", "cat": ["a cat"]}).names == ("dog", "wall", "cat")
    both = of_known({"cat": ["a cat"], "Puss in Boots": ["boots"]}, only=True)
    assert (both.names, sources(both)) == (("cat", "Puss in Boots"), ["extended", "extended"])


def test_background_and_thresholds_follow_the_columns() -> None:
    whole = of_known(None)
    assert whole.background.tolist() == [False, False, True]
    assert np.shares_memory(whole.embeddings, KNOWN.embeddings)
    np.testing.assert_array_equal(whole.thresholds, np.float32([0.5, np.nan, np.nan]))
    mixed = of_known({"cat": "cat", "owl": "owl", "dog": ["dog", "hound"]})
    assert mixed.names == ("wall", "cat", "owl", "dog")
    assert mixed.background.tolist() == [True, False, False, False]
    np.testing.assert_array_equal(mixed.thresholds, np.float32([np.nan, 0.5, np.nan, np.nan]))
    replaced = of_known({"wall": ["brick wall"], "cat": ["a cat"]})
    assert (replaced.background.tolist(), np.isnan(replaced.thresholds).all()) == ([False, False, False], True)
    assert of_known(["dog"], only=True).background.tolist() == [False]
    assert of_known(["dog", "wall"], only=True).background.tolist() == [False, True]
    assert (built(["owl"])[0][0][0], build_class_set(BANK, {}, False, Embed(), PLAIN, {}).background) == ("Cat", None)
    assert build_class_set(BANK, phrases_by_name(["owl"]), False, Embed(), PLAIN, {}).thresholds is None


# ------------------------------------------------------------------------------------------------------------ weights
NAMES = ("red", "green", "blue", "grey thing")
ROWS = unit_rows_of(6, 77)
TRAINED = example_trained(NAMES[:3])
BASE = ClassBank.of(NAMES, name_rows(NAMES), ENCODER_DIGEST).shared(Path("bank.safetensors"))


def scores_of(bank: ClassBank, composer: Composer, names=(), only: bool = False, photos=None):
    classes = build_class_set(
        bank, phrases_by_name(names), only, lambda groups: name_rows([g[0] for g in groups]), composer, photos or {}
    )
    return classes, ranking.logits(ROWS, classes)


@pytest.mark.parametrize("only", [False, True])
def test_names_photos_and_both_rank_by_the_formula(only: bool) -> None:
    """Trained, named, by name and photos, by photos alone, of the bank and of the call."""
    sets = {"amber": photo_set_of(3, 1), "SKU-9": photo_set_of(2, 2, photos_only=True), "green": photo_set_of(2, 3)}
    bank = add(
        BASE,
        ["teal", "amber", "SKU-9"],
        name_rows(["teal", "amber", "SKU-9"]),
        {n: sets[n] for n in ("amber", "SKU-9")},
    )
    bank = add_photos(bank, {"green": sets["green"]})
    composer = Composer(TRAINED, BASE, 20.0)
    shown = {"violet": photo_set_of(2, 4), "amber": photo_set_of(1, 5), "SKU-1": photo_set_of(1, 6, photos_only=True)}
    classes, logits = scores_of(bank, composer, ["red"], only, shown)
    assert {*classes.names} == {"red", *shown} | (set() if only else {*bank.names})
    known = known_of(classes.names, TRAINED, sets, shown)
    assert apart(logits, by_hand(TRAINED.model, ROWS, classes.embeddings, known)) < 1e-5
    assert dict(zip(classes.names, classes.photos.tolist(), strict=True))["amber"] == 4
    plain, logits = scores_of(bank, composer)
    assert apart(logits, by_hand(TRAINED.model, ROWS, plain.embeddings, known_of(plain.names, TRAINED, sets))) < 1e-5


def test_a_photo_counts_once_and_phrases_replace_the_class_of_the_bank() -> None:
    bank = add(BASE, ["amber"], name_rows(["amber"]), {"amber": photo_set("a", "b", dim=DIM)})
    composer = Composer(TRAINED, BASE, 20.0)
    again, _ = scores_of(bank, composer, photos={"amber": photo_set("b", "c", dim=DIM)})
    assert again.photos[again.lookup.name("amber")] == 3
    replaced, _ = scores_of(bank, composer, {"amber": ["yellow", "honey"]}, photos={"amber": photo_set("b", dim=DIM)})
    assert replaced.photos[replaced.lookup.name("amber")] == 1
    with pytest.raises(InputError):
        scores_of(bank, composer, photos={"amber": photo_set("b", dim=DIM + 1)})


def test_a_bank_has_a_model_learned_sums_and_a_calibration_of_its_own() -> None:
    composer = Composer(TRAINED, BASE, 20.0)
    other = example_trained(NAMES[:3], seed=9).model
    bank = fit(rename(BASE, "red", "rose"), other.tensors())
    known = known_of(("rose", *NAMES[1:]), None) | known_of(NAMES, TRAINED)
    _, logits = scores_of(bank, composer)
    assert apart(logits, by_hand(other, ROWS, BASE.embeddings, known)) < 1e-5
    taught = learn(bank, change := learning(bank, {"rose": "x", "grey thing": "y"}))
    for column, (total, count) in zip((0, 3), change.by_key.values(), strict=True):
        before = known.get(column, (np.zeros(DIM), 0.0, True))
        known[column] = before[0] + total, before[1] + count, True
    for names in ([], ["grey thing", "violet"]):
        classes, logits = scores_of(taught, composer, names)
        columns = {name: column for column, name in enumerate(("rose", *NAMES[1:]))}
        placed = {c: known[columns[n]] for c, n in enumerate(classes.names) if columns.get(n) in known}
        assert apart(logits, by_hand(other, ROWS, classes.embeddings, placed, change.translation)) < 1e-5
    calibration = BankCalibration(
        taught.content_digest, composer.digest(taught), (), 2.0, 0.25, (0.3, 0.2, 0.1), {"photos": 60}
    )
    cool, cooled = scores_of(calibrate(taught, calibration), composer)
    np.testing.assert_allclose(cooled, scores_of(taught, composer)[1] / 2, rtol=1e-4, atol=1e-4)
    assert (cool.model.unknown_threshold(3), cool.model.least(0.9, [0, 16]).tolist()) == (0.25, [0.2, 0.2])
    changed, logits = scores_of(add(calibrate(taught, calibration), ["teal"], name_rows(["teal"])), composer)
    assert changed.model.unknown is other.unknown  # it is of an earlier state


def test_text_alone_ranks_where_nobody_fitted_a_model_and_photos_are_prototypes() -> None:
    composer = Composer(None, BASE, 20.0)
    for names in ([], ["violet"]):
        classes, logits = scores_of(BASE, composer, names)
        np.testing.assert_allclose(logits[:, :-1], 20 * ROWS @ classes.embeddings.T, atol=1e-4)
        assert np.isnan(classes.unknown_thresholds).all()
    shown = {name: photo_set_of(3, number) for number, name in enumerate(NAMES[:3])}
    for bank, photos in ((BASE, shown), (add_photos(BASE, shown), {})):
        classes, logits = scores_of(bank, composer, photos=photos)
        centre = np.mean([one.total / len(one) for one in shown.values()], 0)
        np.testing.assert_allclose(classes.model.centre, centre, atol=1e-6)
        expected = by_hand(classes.model, ROWS, classes.embeddings, known_of(classes.names, None, shown))
        assert apart(logits, expected) < 1e-5


@pytest.mark.parametrize("trained", [None, TRAINED], ids=["text alone", "a class model"])
def test_a_few_changes_of_a_large_bundle_rank_as_all_classes_made_anew(trained: TrainedClasses | None) -> None:
    names = [*NAMES, *(f"thing {number}" for number in range(12_000))]
    base = ClassBank.of(names, unit_rows_of(len(names), 5), ENCODER_DIGEST).shared(Path("bank.safetensors"))
    bank = remove(rename(base, "thing 9", "ninth"), ["thing 4000"])
    bank = add(bank, ["thing 7000", "teal"], name_rows(["thing 7000", "teal"]))
    bank = add_photos(bank, {"thing 2000": photo_set_of(3, 1), "teal": photo_set_of(2, 2)})
    composer = Composer(trained, base, 20.0)
    for shown in ([], ["thing 5000", "violet"]):
        classes, logits = scores_of(bank, composer, shown)
        known = known_of(classes.names, trained, {name: bank.photos_of(name) for name in ("thing 2000", "teal")})
        assert apart(logits, by_hand(classes.model, ROWS, classes.embeddings, known)) < 1e-5
        rows = dict(zip(base.names, base.embeddings, strict=True)) | {"ninth": base.embeddings[names.index("thing 9")]}
        rows |= dict(zip(["thing 7000", "teal"], name_rows(["thing 7000", "teal"]), strict=True))
        at = [column for column, name in enumerate(classes.names) if name != "violet"]
        np.testing.assert_array_equal(classes.embeddings[at], [rows[classes.names[column]] for column in at])
    assert (bank.lookup.get("ninth"), bank.lookup.get("thing 9"), bank.lookup.get("thing 4000")) == (13, None, None)
    assert [bank.names[bank.lookup.find(name)] for name in ("THING 7000", "teal")] == ["thing 7000", "teal"]


def test_the_names_of_a_call_replace_default_names_and_extend_all_other_classes(tmp_path: Path) -> None:
    shipped = Classifier.open(device="cpu")
    default = list(shipped.bank.names)
    names = ["mug", "red mug"]
    assert list(shipped.class_set(names).names) == names
    assert list(shipped.class_set().names) == default
    assert list(shipped.class_set(names, only=False).names) == [*default, *names]
    shipped.bank.save(tmp_path / "unchanged.safetensors")
    assert list(Classifier.open(tmp_path / "unchanged.safetensors").class_set(names).names) == names
    with_mug = Classifier.open(device="cpu").add("mug")
    assert list(with_mug.class_set(["red mug"]).names) == [*default, "mug", "red mug"]
    assert list(with_mug.class_set(["red mug"], only=True).names) == ["red mug"]
    freeze(shipped.bundle, with_mug.bank, tmp_path / "frozen")  # these classes were chosen
    assert len(Classifier.open(tmp_path / "frozen", device="cpu").class_set(["red mug"]).names) == len(default) + 2


def test_a_trained_bundle_has_classes_of_its_own(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "bundle", trained=example_trained()))
    exported = bundle.bank.replaced(provenance={"origin": "sar-export"})
    assert len(Classifier(bundle, bank=exported).class_set(["owl"]).names) == len(bundle.bank.names) + 1
    untrained = open_bundle(write_bundle(tmp_path / "untrained"))
    exported = untrained.bank.replaced(provenance={"origin": "sar-export"})
    assert list(Classifier(untrained, bank=exported).class_set(["owl"]).names) == ["owl"]
