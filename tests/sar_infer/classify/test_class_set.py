from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sar_infer.bank import ClassBank, calibrate, set_class
from sar_infer.bank.learned import BankCalibration
from sar_infer.classify.class_set import (
    ClassSet,
    build_class_set,
    with_calibration,
    with_own_calibration,
)
from sar_infer.errors import InputError
from sar_infer.text.names import phrases_by_name

BANK = ClassBank.of(("Cat", "dog", "fox"), np.eye(3, dtype=np.float32), "e")


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
    result = build_class_set(BANK, phrases_by_name(classes), only, embed)
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
        build_class_set(empty, {}, False, Embed())


# ------------------------------------------------------------------------------------------ what is known of a class
KNOWN = ClassBank.of(("Cat", "dog", "wall"), np.eye(3, dtype=np.float32), "e")
KNOWN = set_class(set_class(KNOWN, "Cat", aliases=("puss in  boots",), threshold=0.5), "wall", background=True)


def of_known(classes, only: bool = False) -> ClassSet:
    return build_class_set(KNOWN, phrases_by_name(classes), only, Embed())


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
    assert (built(["owl"])[0][0][0], build_class_set(BANK, {}, False, Embed()).background) == ("Cat", None)
    assert build_class_set(BANK, phrases_by_name(["owl"]), False, Embed()).thresholds is None


# ------------------------------------------------------------------------------------------------------ calibration
def calibrated(classes, only: bool = False, bank: ClassBank = BANK, names=("Cat", "fox")) -> list[bool] | None:
    built_ = build_class_set(bank, phrases_by_name(classes), only, Embed())
    flags = with_calibration(built_, names, BANK).calibrated
    return None if flags is None else flags.tolist()


def test_a_class_is_calibrated_with_the_bundles_row_alone() -> None:
    assert calibrated(None) == [True, False, True]
    assert calibrated(["owl", " CAT"]) == [False, True, False, True]
    assert calibrated(["owl"], only=True) == [False]
    assert calibrated({"fox": ["red fox"]}) == [True, False, False]
    rows = np.eye(3, dtype=np.float32)
    assert calibrated(None, bank=ClassBank.of(("fox", "Cat"), rows[[2, 1]], "e")) == [True, False]
    assert calibrated(None, names=()) is None
    assert calibrated(None, names=("gone",)) == [False, False, False]


def test_a_banks_own_calibration_holds_for_its_classes_but_those_that_get_photos() -> None:
    calibration = BankCalibration("", "", "text", ("Cat", "dog"), (), 1.0, {"score": 0.5, "energy": -1.0}, {}, {})
    bank = calibrate(KNOWN, calibration)
    for photos, flags in ((), [True, True, False]), (("Puss in boots",), [False, True, False]):
        calibrated_set = with_own_calibration(of_known(None), bank, photos)
        assert (calibrated_set.calibrated.tolist(), calibrated_set.calibration) == (flags, calibration)
    calibrated_set = with_own_calibration(of_known(["DOG", "owl"]), bank, ["owl"])
    assert dict(zip(calibrated_set.names, calibrated_set.calibrated.tolist(), strict=True)) == {
        "Cat": True,
        "wall": False,
        "DOG": True,
        "owl": False,
    }
    plain = of_known(None)
    assert with_own_calibration(plain, KNOWN, []) is plain
