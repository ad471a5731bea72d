"""The text of edits in the history, and their refusals; ``test_replay`` compares classes with a model."""

from __future__ import annotations

import numpy as np
import pytest
from support.banks import example_bank, learning, unit_row, unit_rows

from sar_infer.bank import ClassBank, ClassInfo, add, amend, fit, learn, merge, remove, rename, rollback
from sar_infer.errors import BankError, ClassNameError

BANK = example_bank(info={"dog": ClassInfo(phrases=("dog", "hound"), aliases=("mutt",), threshold=0.5)})


def bank_of(*names: str, rows: str = "", **info: ClassInfo) -> ClassBank:
    """Return a bank with rows by the names, or by the words of ``rows``."""
    return ClassBank(names, unit_rows(rows.split() or names), BANK.encoder_digest, info=info)


def row(bank: ClassBank, name: str) -> list[float]:
    return bank.embeddings[bank.index[name]].tolist()


def test_new_classes_follow_and_are_marked() -> None:
    info = {"owl": ClassInfo(phrases=("owl", "barn owl"), background=True), "emu": ClassInfo(phrases=("emu",))}
    bank = add(BANK, ["owl", "emu"], unit_rows(["o", "e"]), info, by="a test")
    assert bank.names == ("cat", "dog", "fox", "owl", "emu")
    (step,) = bank.history
    assert (step.n, step.action, step.summary, step.by) == (1, "add", "added 'owl', 'emu'", "a test")
    assert bank.info["owl"] == ClassInfo(phrases=("owl", "barn owl"), background=True, added=step.at)
    assert bank.info["emu"] == ClassInfo(added=step.at)
    assert (BANK.added_count, BANK.history, len(BANK.names)) == (0, (), 3)
    assert bank.provenance == {"list": "mine"}


def test_a_class_that_is_there_keeps_its_position_spelling_and_settings() -> None:
    bank = add(BANK, [" DOG"], unit_rows(["new"]))
    assert (bank.names, row(bank, "dog")) == (BANK.names, unit_row("new").tolist())
    assert bank.info["dog"] == ClassInfo(aliases=("mutt",), threshold=0.5, added=bank.history[0].at)
    assert bank.history[0].summary == "replaced 'dog'"
    bank = add(BANK, ["cat"], unit_rows(["cat"]), {"cat": ClassInfo(phrases=("cat", "cat"))})
    assert (bank.info["cat"].phrases, bank.history[0].summary) == (("cat", "cat"), "changed 'cat'")


def test_nothing_new_is_no_step() -> None:
    assert add(BANK, ["cat"], unit_rows(["cat"]) + np.float32(1e-7)) is BANK  # two runs of an encoder differ by so much
    assert add(BANK, ["dog"], unit_rows(["dog"]), {"dog": BANK.info["dog"]}) is BANK
    assert remove(BANK, []) is BANK
    assert rename(BANK, "mutt", "dog") is BANK
    assert amend(BANK, {"dog": BANK.info["dog"], "cat": ClassInfo(added="x", phrases=("y",))}) is BANK
    assert merge(BANK, BANK) is BANK


@pytest.mark.parametrize(
    ("names", "rows", "info", "error", "message"),
    [
        (["owl", "OWL "], unit_rows("ab"), {}, ClassNameError, "'OWL '"),
        (["Mutt"], unit_rows("a"), {}, ClassNameError, "'Mutt' .* 'dog'"),
        (["owl"], unit_rows("ab"), {}, BankError, r"\(2, 4\)"),
        (["owl"], 2 * unit_rows("a"), {}, BankError, "length 2"),
        (["cat"], unit_rows("a") * np.float32(np.nan), {}, BankError, "length nan"),
        ([" "], unit_rows("a"), {}, BankError, "empty"),
        (["owl"], unit_rows("a"), {"emu": ClassInfo()}, ClassNameError, "emu"),
        (["owl"], unit_rows("a"), {"owl": ClassInfo(aliases=("CAT",))}, BankError, "'CAT' .* 'cat'"),
        (["owl"], unit_rows("a"), {"owl": ClassInfo(aliases=("mutt",))}, BankError, "mutt"),
    ],
)
def test_classes_that_cannot_be_added(names, rows, info, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        add(BANK, names, rows, info)


def test_removals() -> None:
    bank = remove(BANK, ["mutt", "CAT", "cat"])
    assert (bank.names, dict(bank.info)) == (("fox",), {})
    assert bank.history[0].summary == "removed 'cat', 'dog' (given by its alias 'mutt')"
    many = remove(add(BANK, ["a", "b"], unit_rows("ab")), ["a", "b", "cat", "fox"])
    assert many.history[1].summary == "removed 4 classes"
    assert remove(BANK, BANK.names).history[0].summary == "removed 'cat', 'dog', 'fox'"
    with pytest.raises(ClassNameError, match="dgo.* mean .dog"):
        remove(BANK, ["dgo"])
    with pytest.raises(ClassNameError, match="expected a list"):
        remove(BANK, "cat")


def test_a_renamed_class_keeps_its_row_unless_it_gets_another() -> None:
    assert rename(BANK, "dog", "mutt").info["mutt"] == ClassInfo(("dog", "hound"), (), threshold=0.5)
    bank = rename(BANK, "mutt", "wolf", unit_row("wolf"))
    (step,) = bank.history
    assert (bank.names, step.summary) == (("cat", "wolf", "fox"), "renamed 'dog' to 'wolf', embedded anew")
    assert row(bank, "wolf") == unit_row("wolf").tolist()
    assert bank.info["wolf"] == ClassInfo(aliases=("mutt",), threshold=0.5, added=bank.info["wolf"].added)
    assert bank.added_count == 1
    back = rollback(bank, 0)
    assert (back.names, back.info, back.content_digest) == (BANK.names, BANK.info, BANK.content_digest)
    bank = rename(BANK, "mutt", "dog", unit_row("wolf"))
    assert (row(bank, "dog"), bank.phrases("dog")) == (unit_row("wolf").tolist(), ("dog",))
    assert bank.info["dog"].aliases == ("mutt",)
    for name in ("  ", "fox", "Mutt"):
        with pytest.raises(ClassNameError):
            rename(BANK, "cat", name)
    with pytest.raises(BankError):
        rename(BANK, "cat", "wolf", 2 * unit_row("wolf"))


def test_settings_change_and_facts_stay() -> None:
    bank = amend(BANK, {"MUTT": ClassInfo(background=True, added="never"), "fox": ClassInfo(aliases=("reynard",))})
    assert bank.info["dog"] == ClassInfo(phrases=("dog", "hound"), background=True)
    assert bank.info["fox"] == ClassInfo(aliases=("reynard",))
    assert bank.history[0].summary == "changed 'dog' (aliases, background, threshold), 'fox' (aliases)"
    for aliases in (("cat",), ("FOX",), ("reynard", "Reynard")):
        with pytest.raises(BankError):
            amend(BANK, {"fox": ClassInfo(aliases=aliases)})


# -------------------------------------------------------------------------------------------------------------- merging
def test_a_conflict_is_refused_or_settled() -> None:
    other = bank_of("cat", "Dog", "owl", rows="cat other owl", owl=ClassInfo(aliases=("hooter",)))
    with pytest.raises(ClassNameError, match="1 class conflicts"):
        merge(BANK, other)
    ours, theirs = merge(BANK, other, "keep"), merge(BANK, other, "take")
    assert ours.names == theirs.names == ("cat", "dog", "fox", "owl")
    assert row(ours, "dog") == unit_row("dog").tolist()
    assert ours.info["owl"] == ClassInfo(aliases=("hooter",), added=ours.history[0].at)
    assert row(theirs, "dog") == unit_row("other").tolist()
    assert theirs.info["dog"] == ClassInfo(aliases=("mutt",), added=theirs.history[0].at)
    assert theirs.history[0].summary == "added 'owl', replaced 'dog'"
    turned = ClassBank(BANK.names, BANK.embeddings[[1, 0, 2]], BANK.encoder_digest)
    with pytest.raises(ClassNameError, match="2 classes .* --conflict"):
        merge(BANK, turned)
    with pytest.raises(BankError, match="another encoder"):
        merge(BANK, ClassBank(("owl",), unit_rows(["owl"]), "b" * 64))


def test_aliases_and_settings_that_do_not_clash_are_united() -> None:
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
    assert row(both, "Crane") == unit_row("bird").tolist()
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
        assert both.history[0].summary.startswith("added ")
        assert all(alias in both.history[0].summary for alias in ("'crane'", "'hoist'", "'Lift'"))


@pytest.mark.parametrize(("conflict", "owner"), [("keep", "rook"), ("take", "tower")])
def test_an_alias_of_two_classes_is_decided(conflict: str, owner: str) -> None:
    ours = bank_of("rook", rook=ClassInfo(aliases=("castle",), threshold=0.2))
    theirs = bank_of("tower", tower=ClassInfo(aliases=("Castle", "turret")))
    with pytest.raises(ClassNameError):
        merge(ours, theirs)
    both = merge(ours, theirs, conflict)  # type: ignore[arg-type]
    assert both.spelling("castle") == owner
    assert (both.spelling("turret"), both.info["rook"].threshold) == ("tower", 0.2)


def test_the_others_statistics_and_learning_stay_behind() -> None:
    other = learn(fit(add(BANK, ["owl"], unit_rows(["owl"])), {"slope": np.array(0.5)}), learning({"owl": "o"}))
    merged = merge(BANK, other)
    assert (merged.fitted, merged.learned) == (None, None)
    left_out = "left out statistics of the other, left out learning of the other"
    assert merged.history[-1].summary == f"added 'owl', {left_out}"
    ours = learn(BANK, learning({"cat": "c"}))
    assert "learning" in merge(ours, other).history[-1].summary
    assert "left out" not in merge(ours, add(BANK, ["owl"], unit_rows(["owl"]))).history[-1].summary
