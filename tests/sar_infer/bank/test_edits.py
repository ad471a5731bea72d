from __future__ import annotations

import numpy as np
import pytest
from support.banks import example_bank, unit_row, unit_rows

from sar_infer.bank import ClassBank, ClassInfo, add, amend, find, merge, remove, rename, rollback
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
    assert (step.n, step.action, step.summary, step.by) == (1, "add", "added 'owl', 'emu'", "a test")
    assert bank.info["owl"] == ClassInfo(phrases=("owl", "barn owl"), background=True, added=step.at)
    assert bank.info["emu"] == ClassInfo(added=step.at)
    assert (bank.added_count, BANK.added_count, BANK.history, len(BANK.names)) == (len(bank.names) - 3, 0, (), 3)
    assert bank.provenance == {"list": "mine"}


def test_a_known_class_keeps_its_place_spelling_and_settings() -> None:
    bank = add(BANK, [" DOG"], unit_rows(["new"]))
    assert bank.names == ("cat", "dog", "fox")
    assert rows_by_name(bank)["dog"] == unit_row("new").tolist()
    assert bank.info["dog"] == ClassInfo(aliases=("mutt",), threshold=0.5, added=bank.history[0].at)
    assert bank.history[0].summary == "replaced 'dog'"
    assert bank.added_count == len(bank.names) - 2


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
    assert (bank.info["cat"].phrases, bank.history[0].summary) == (("cat", "cat"), "changed 'cat'")
    np.testing.assert_array_equal(bank.embeddings, BANK.embeddings)


@pytest.mark.parametrize(
    ("names", "rows", "info", "error", "message"),
    [
        (["owl", "OWL "], ["a", "b"], {}, ClassNameError, "'OWL '"),
        (["Mutt"], ["a"], {}, ClassNameError, "'Mutt' .* 'dog'"),
        (["owl"], ["a", "b"], {}, BankError, r"\(2, 4\)"),
        ([" "], ["a"], {}, BankError, "empty"),
        (["owl"], ["a"], {"emu": ClassInfo()}, ClassNameError, "emu"),
        (["owl"], ["a"], {"owl": ClassInfo(aliases=("CAT",))}, BankError, "'CAT' .* 'cat'"),
        (["owl"], ["a"], {"owl": ClassInfo(aliases=("mutt",))}, BankError, "mutt"),
    ],
)
def test_what_cannot_be_added(names, rows, info, error, message: str) -> None:
    with pytest.raises(error, match=message):
        add(BANK, names, unit_rows(rows), info)


def test_rows_must_have_length_one() -> None:
    with pytest.raises(BankError):
        add(BANK, ["owl"], 2 * unit_rows(["owl"]))


def test_classes_go_with_what_is_known_of_them() -> None:
    bank = remove(BANK, ["mutt", "CAT", "cat"])
    assert (bank.names, dict(bank.info), bank.history[0].summary) == (
        ("fox",),
        {},
        "removed 'cat', 'dog' (given by its alias 'mutt')",
    )
    with pytest.raises(ClassNameError, match="dgo.* mean .dog"):
        remove(BANK, ["dgo"])
    many = remove(add(BANK, ["a", "b"], unit_rows("ab")), ["a", "b", "cat", "fox"])
    assert many.history[1].summary == "removed 4 classes"
    assert remove(BANK, BANK.names).history[0].summary == "removed 'cat', 'dog', 'fox'"


def test_a_renamed_class_keeps_its_row_and_what_it_was_made_from() -> None:
    bank = rename(BANK, "cat", "tabby")
    assert bank.names == ("tabby", "dog", "fox")
    np.testing.assert_array_equal(bank.embeddings, BANK.embeddings)
    assert bank.info["tabby"] == ClassInfo(phrases=("cat",))
    assert dict(rename(bank, "tabby", "cat").info) == dict(BANK.info)
    assert rename(BANK, "dog", "mutt").info["mutt"] == ClassInfo(("dog", "hound"), (), threshold=0.5)
    assert rename(BANK, "dog", "DOG").names == ("cat", "DOG", "fox")
    for taken in ("fox", "Mutt"):
        with pytest.raises(ClassNameError):
            rename(BANK, "cat", taken)


def test_a_new_name_with_a_new_row_is_one_step() -> None:
    bank = rename(BANK, "mutt", "wolf", unit_row("wolf"))
    (step,) = bank.history
    assert (bank.names, step.summary) == (("cat", "wolf", "fox"), "renamed 'dog' to 'wolf', embedded anew")
    assert rows_by_name(bank)["wolf"] == unit_row("wolf").tolist()
    assert bank.info["wolf"] == ClassInfo(aliases=("mutt",), threshold=0.5, added=bank.info["wolf"].added)
    assert bank.added_count == len(bank.names) - 2
    back = rollback(bank, 0)
    assert (back.names, dict(back.info)) == (BANK.names, dict(BANK.info))
    np.testing.assert_array_equal(back.embeddings, BANK.embeddings)


def test_the_same_name_may_get_a_new_row() -> None:
    bank = rename(BANK, "mutt", "dog", unit_row("wolf"))
    assert rows_by_name(bank)["dog"] == unit_row("wolf").tolist()
    assert (bank.phrases("dog"), bank.info["dog"].aliases) == (("dog",), ("mutt",))
    with pytest.raises(BankError):
        rename(BANK, "cat", "wolf", 2 * unit_row("wolf"))


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ClassNameError):
        rename(BANK, "cat", "  ")


def test_settings_change_and_facts_stay() -> None:
    bank = amend(BANK, {"MUTT": ClassInfo(background=True, added="never"), "fox": ClassInfo(aliases=("reynard",))})
    assert dict(bank.info) == {
        "dog": ClassInfo(phrases=("dog", "hound"), background=True),
        "fox": ClassInfo(aliases=("reynard",)),
    }
    assert bank.history[0].summary == "changed 'dog' (aliases, background, threshold), 'fox' (aliases)"
    with pytest.raises(BankError):
        amend(BANK, {"fox": ClassInfo(aliases=("cat",))})
    for aliases in (("FOX",), ("reynard", "Reynard")):
        with pytest.raises(BankError):
            amend(BANK, {"fox": ClassInfo(aliases=aliases)})


def other_bank() -> ClassBank:
    rows = np.concatenate([unit_rows(["cat"]), unit_rows(["other", "owl"])])
    return ClassBank(("cat", "Dog", "owl"), rows, BANK.encoder_digest, info={"owl": ClassInfo(aliases=("hooter",))})


def test_merging() -> None:
    with pytest.raises(ClassNameError):
        merge(BANK, other_bank())
    kept = merge(BANK, other_bank(), "keep")
    assert (kept.names, rows_by_name(kept)["dog"]) == (("cat", "dog", "fox", "owl"), unit_row("dog").tolist())
    assert kept.info["owl"] == ClassInfo(aliases=("hooter",), added=kept.history[0].at)
    taken = merge(BANK, other_bank(), "take")
    assert (taken.names, rows_by_name(taken)["dog"]) == (kept.names, unit_row("other").tolist())
    assert taken.info["dog"] == ClassInfo(aliases=("mutt",), added=taken.history[0].at)
    assert taken.history[0].summary == "added 'owl', replaced 'dog'"
    foreign = ClassBank(("owl",), unit_rows(["owl"]), "b" * 64)
    with pytest.raises(BankError):
        merge(BANK, foreign)


def test_all_classes_that_conflict_are_counted() -> None:
    theirs = ClassBank(BANK.names, BANK.embeddings[[1, 0, 2]], BANK.encoder_digest)
    with pytest.raises(ClassNameError, match="2 classes .* --conflict"):
        merge(BANK, theirs)


def bank_of(*names: str, rows: str = "", **info: ClassInfo) -> ClassBank:
    """Rows by the names, or by the words of ``rows``."""
    return ClassBank(names, unit_rows(rows.split() or names), BANK.encoder_digest, info=info)


def test_merging_unites_what_does_not_clash() -> None:
    ours = bank_of("cat", "dog", cat=ClassInfo(aliases=("kitty",), threshold=0.3, background=True))
    theirs = bank_of("cat", "Dog", rows="cat dog", cat=ClassInfo(aliases=("Puss", "KITTY"), background=True))
    both = merge(ours, theirs)
    assert dict(both.info) == {"cat": ClassInfo(aliases=("kitty", "Puss"), threshold=0.3, background=True)}
    assert both.history[0].summary == "changed 'cat'"
    assert merge(both, theirs) is both


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ClassInfo(threshold=0.4, background=True), "thresholds"),
        (ClassInfo(threshold=0.3), "background"),
    ],
)
def test_settings_that_clash_are_decided(other: ClassInfo, message: str) -> None:
    ours, theirs = bank_of("cat", cat=ClassInfo(threshold=0.3, background=True)), bank_of("cat", cat=other)
    with pytest.raises(ClassNameError, match=message):
        merge(ours, theirs)
    assert merge(ours, theirs, "keep") is ours
    assert merge(ours, theirs, "take").info["cat"] == other


def test_names_that_differ_in_case_alone_merge_by_their_letters() -> None:
    ours, theirs = bank_of("crane", "ox"), bank_of("Crane", "crane", "OX", rows="bird crane ox")
    both = merge(ours, theirs)
    assert both.names == ("crane", "ox", "Crane")
    assert rows_by_name(both)["Crane"] == unit_row("bird").tolist()
    assert merge(theirs, ours, "keep") is theirs
    assert merge(bank_of("crane"), bank_of("Crane", "CRANE", rows="crane bird")).names == ("crane", "CRANE")
    assert merge(theirs, bank_of("CRANE", rows="third")).names == ("Crane", "crane", "OX", "CRANE")


@pytest.mark.parametrize("conflict", ["keep", "take"])
def test_an_alias_that_is_a_class_elsewhere_goes(conflict: str) -> None:
    machine = bank_of("lift", lift=ClassInfo(aliases=("crane", "hoist")))
    bird = bank_of("Crane", "hoist", **{"Crane": ClassInfo(aliases=("Lift",))})
    with pytest.raises(ClassNameError):
        merge(machine, bird)
    for one, two in ((machine, bird), (bird, machine)):
        both = merge(one, two, conflict)  # type: ignore[arg-type]
        assert set(both.names) == {"lift", "Crane", "hoist"}
        assert [item.aliases for item in both.info.values() if item.aliases] == []
        assert "dropped aliases 3 classes" not in both.history[0].summary
        assert both.history[0].summary.startswith("added ")
        assert all(alias in both.history[0].summary for alias in ("'crane'", "'hoist'", "'Lift'"))


@pytest.mark.parametrize(("conflict", "owner"), [("keep", "rook"), ("take", "tower")])
def test_an_alias_of_two_classes_is_decided(conflict: str, owner: str) -> None:
    ours = bank_of("rook", rook=ClassInfo(aliases=("castle",), threshold=0.2))
    theirs = bank_of("tower", tower=ClassInfo(aliases=("Castle", "turret")))
    with pytest.raises(ClassNameError):
        merge(ours, theirs)
    both = merge(ours, theirs, conflict)  # type: ignore[arg-type]
    assert both.names[find(both, "castle")] == owner
    assert (both.names[find(both, "turret")], both.info["rook"].threshold) == ("tower", 0.2)
    assert find(rollback(both, 0), "castle") == 0


def test_one_name_is_no_list_of_names() -> None:
    with pytest.raises(ClassNameError):
        remove(BANK, "cat")


def test_a_row_that_holds_no_number_is_refused() -> None:
    with pytest.raises(BankError):
        add(BANK, ["cat"], np.full((1, 4), np.nan, dtype=np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"phrases": ("a", " ")}, "empty phrase"), ({"aliases": ("",)}, "empty alias")]
    + [({"aliases": ("a\x1b[2J",)}, "control character")]
    + [({"phrases": ("a\nb",)}, "control character")]
    + [({"aliases": ("\udcff",)}, "UTF-8")]
    + [({"threshold": value}, "threshold") for value in (-0.1, 1.1, float("nan"))],
)
def test_unsound_info(changes: dict, message: str) -> None:
    assert (ClassInfo(threshold=0).threshold, ClassInfo(threshold=1).threshold) == (0, 1)
    with pytest.raises(BankError, match=message):
        ClassInfo(**changes)
