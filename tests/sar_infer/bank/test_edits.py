from __future__ import annotations

import numpy as np
import pytest
from support.banks import example_bank, unit_row, unit_rows

from sar_infer.bank import ClassBank, ClassInfo, add, amend, merge, remove, rename
from sar_infer.errors import BankError, ClassNameError

BANK = example_bank(info={"dog": ClassInfo(phrases=("dog", "hound"), aliases=("mutt",), threshold=0.5)})


def rows_by_name(bank: ClassBank) -> dict[str, list[float]]:
    return {name: bank.embeddings[row].tolist() for row, name in enumerate(bank.names)}


def test_new_classes_follow_and_are_marked() -> None:
    info = {"owl": ClassInfo(phrases=("owl", "barn owl"), background=True), "emu": ClassInfo(phrases=("emu",))}
    bank = add(BANK, ["owl", "emu"], unit_rows(["o", "e"]), info, by="a test")
    assert bank.names == ("cat", "dog", "fox", "owl", "emu")
    np.testing.assert_array_equal(bank.embeddings, unit_rows(["cat", "dog", "fox", "o", "e"]))
    (step,) = bank.history
    assert (step.n, step.action, step.summary, step.by) == (1, "add", "added 2", "a test")
    assert bank.info["owl"] == ClassInfo(phrases=("owl", "barn owl"), background=True, added=step.at)
    assert bank.info["emu"] == ClassInfo(added=step.at)
    assert (bank.own, BANK.own, BANK.history, len(BANK.names)) == (3, 3, (), 3)
    assert bank.provenance == {"list": "mine"}


def test_a_known_class_keeps_its_place_spelling_and_settings() -> None:
    bank = add(BANK, [" DOG"], unit_rows(["new"]))
    assert bank.names == ("cat", "dog", "fox")
    assert rows_by_name(bank)["dog"] == unit_row("new").tolist()
    assert bank.info["dog"] == ClassInfo(aliases=("mutt",), threshold=0.5, added=bank.history[0].at)
    assert bank.history[0].summary == "replaced 1"
    assert bank.own == 2


def test_nothing_new_is_no_step() -> None:
    almost = unit_rows(["cat"]) + np.float32(1e-7)
    assert add(BANK, ["cat"], almost) is BANK
    assert add(BANK, ["dog"], unit_rows(["dog"]), {"dog": BANK.info["dog"]}) is BANK
    assert remove(BANK, []) is BANK
    assert rename(BANK, "mutt", "dog") is BANK
    assert amend(BANK, {"dog": BANK.info["dog"], "cat": ClassInfo(added="x", phrases=("y",))}) is BANK
    assert merge(BANK, BANK) is BANK


def test_other_phrases_with_the_same_row_are_noted() -> None:
    bank = add(BANK, ["cat"], unit_rows(["cat"]), {"cat": ClassInfo(phrases=("cat", "cat"))})
    assert (bank.info["cat"].phrases, bank.history[0].summary) == (("cat", "cat"), "changed 1")
    np.testing.assert_array_equal(bank.embeddings, BANK.embeddings)


@pytest.mark.parametrize(
    ("names", "rows", "info", "error", "message"),
    [
        (["owl", "OWL "], ["a", "b"], {}, ClassNameError, "'OWL ' stands more than once"),
        (["Mutt"], ["a"], {}, ClassNameError, "'Mutt' is another name of class 'dog'"),
        (["owl"], ["a", "b"], {}, BankError, r"expected rows \(1, 4\), got \(2, 4\)"),
        ([" "], ["a"], {}, BankError, "class 3 has an empty name"),
        (["owl"], ["a"], {"emu": ClassInfo()}, ClassNameError, "'emu', which is not among the names"),
        (
            ["owl"],
            ["a"],
            {"owl": ClassInfo(aliases=("CAT",))},
            BankError,
            "alias 'CAT' .*already stands for class 'cat'",
        ),
        (["owl"], ["a"], {"owl": ClassInfo(aliases=("mutt",))}, BankError, "already stands for class 'dog'|'owl'"),
    ],
)
def test_what_cannot_be_added(names, rows, info, error, message: str) -> None:
    with pytest.raises(error, match=message):
        add(BANK, names, unit_rows(rows), info)


def test_rows_must_have_length_one() -> None:
    with pytest.raises(BankError, match="'owl' has length 2, expected 1"):
        add(BANK, ["owl"], 2 * unit_rows(["owl"]))


def test_classes_go_with_what_is_known_of_them() -> None:
    bank = remove(BANK, ["mutt", "CAT", "cat"])
    assert (bank.names, dict(bank.info), bank.history[0].summary) == (("fox",), {}, "removed 'cat', 'dog'")
    with pytest.raises(ClassNameError, match=r"no class 'dgo' in the bank; did you mean 'dog'\?"):
        remove(BANK, ["dgo"])
    many = remove(add(BANK, ["a", "b"], unit_rows("ab")), ["a", "b", "cat", "fox"])
    assert many.history[1].summary == "removed 4 classes"


def test_a_renamed_class_keeps_its_row_and_what_it_was_made_from() -> None:
    bank = rename(BANK, "cat", "tabby")
    assert bank.names == ("tabby", "dog", "fox")
    np.testing.assert_array_equal(bank.embeddings, BANK.embeddings)
    assert bank.info["tabby"] == ClassInfo(phrases=("cat",))
    assert dict(rename(bank, "tabby", "cat").info) == dict(BANK.info)
    assert rename(BANK, "dog", "mutt").info["mutt"] == ClassInfo(("dog", "hound"), (), threshold=0.5)
    assert rename(BANK, "dog", "DOG").names == ("cat", "DOG", "fox")
    for taken in ("fox", "Mutt"):
        with pytest.raises(ClassNameError, match="already stands for class"):
            rename(BANK, "cat", taken)


def test_settings_change_and_facts_stay() -> None:
    bank = amend(BANK, {"MUTT": ClassInfo(background=True, added="never"), "fox": ClassInfo(aliases=("reynard",))})
    assert dict(bank.info) == {
        "dog": ClassInfo(phrases=("dog", "hound"), background=True),
        "fox": ClassInfo(aliases=("reynard",)),
    }
    assert bank.history[0].summary == "changed 'dog', 'fox'"
    with pytest.raises(BankError, match="alias 'cat' of class 'fox' already stands for class 'cat'"):
        amend(BANK, {"fox": ClassInfo(aliases=("cat",))})


def other_bank() -> ClassBank:
    rows = np.concatenate([unit_rows(["cat"]), unit_rows(["other", "owl"])])
    return ClassBank(("cat", "Dog", "owl"), rows, BANK.encoder_digest, info={"owl": ClassInfo(aliases=("hooter",))})


def test_merging() -> None:
    with pytest.raises(ClassNameError, match="both banks have class 'Dog', with different rows"):
        merge(BANK, other_bank())
    kept = merge(BANK, other_bank(), "keep")
    assert (kept.names, rows_by_name(kept)["dog"]) == (("cat", "dog", "fox", "owl"), unit_row("dog").tolist())
    assert kept.info["owl"] == ClassInfo(aliases=("hooter",), added=kept.history[0].at)
    taken = merge(BANK, other_bank(), "take")
    assert (taken.names, rows_by_name(taken)["dog"]) == (kept.names, unit_row("other").tolist())
    assert taken.info["dog"] == ClassInfo(added=taken.history[0].at)
    assert taken.history[0].summary == "added 1, replaced 1"
    foreign = ClassBank(("owl",), unit_rows(["owl"]), "b" * 64)
    with pytest.raises(BankError, match=f"expected {'a' * 64}, the other has {'b' * 64}"):
        merge(BANK, foreign)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"phrases": ("a", " ")}, "empty phrase"), ({"aliases": ("",)}, "empty alias")]
    + [({"threshold": value}, r"threshold of 0\.\.1") for value in (-0.1, 1.1, float("nan"))],
)
def test_unsound_info(changes: dict, message: str) -> None:
    with pytest.raises(BankError, match=message):
        ClassInfo(**changes)
