from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.banks import example_bank, learning, photo_set, unit_row, unit_rows

from sar_infer.bank import (
    ClassBank,
    ClassInfo,
    Difference,
    add,
    amend,
    diff,
    fit,
    learn,
    merge,
    remove,
    rename,
    set_photos_only,
)
from sar_infer.errors import BankError

BANK = example_bank(("cat", "dog", "fox"))


def test_every_kind_of_change() -> None:
    bank = rename(remove(BANK, ["fox"]), "cat", "tabby")
    bank = amend(add(bank, ["owl", "dog"], unit_rows(["owl", "other"])), {"dog": ClassInfo(aliases=("mutt",))})
    found = diff(BANK, bank)
    assert found
    assert (found.added, found.removed, dict(found.renamed)) == (("owl",), ("fox",), {"cat": "tabby"})
    assert found.reembedded == {"dog": pytest.approx(float(unit_row("dog") @ unit_row("other")), abs=1e-6)}
    assert found.changed == {"dog": (ClassInfo(), bank.info["dog"])}


def test_order_and_history_are_no_difference() -> None:
    shuffled = ClassBank(("fox", "cat", "dog"), BANK.embeddings[[2, 0, 1]], BANK.encoder_digest)
    assert diff(BANK, shuffled) == Difference((), (), {}, {}, {})
    assert not diff(BANK, shuffled)


def test_several_with_one_row_are_not_guessed() -> None:
    twins = ClassBank(("x", "y"), np.tile(unit_row("cat"), (2, 1)), BANK.encoder_digest)
    found = diff(remove(BANK, ["dog", "fox"]), twins)
    assert (found.added, found.removed, found.renamed) == (("x", "y"), ("cat",), {})


def test_other_encoders_cannot_be_compared() -> None:
    with pytest.raises(BankError):
        diff(BANK, ClassBank(BANK.names, BANK.embeddings, "b" * 64))


def test_when_a_class_was_added_is_no_difference_and_that_it_was_added_is() -> None:
    first, later, own = (
        example_bank(("cat", "dog", "fox"), {"cat": ClassInfo(added=added)})
        for added in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", None)
    )
    assert not diff(first, later)
    for one, two in ((first, own), (own, first)):
        assert diff(one, two).changed == {"cat": (one.info_of("cat"), two.info_of("cat"))}


def test_photos_that_came_and_went() -> None:
    before = add(BANK, ["cat", "dog"], BANK.embeddings[:2], photos={"cat": photo_set("p", "q"), "dog": photo_set("r")})
    after = add(
        BANK, ["cat", "dog"], BANK.embeddings[:2], photos={"cat": photo_set("q", "s", "t"), "dog": photo_set("r")}
    )
    assert diff(before, before).photos == {}
    (change,) = [found for name, found in diff(before, after).photos.items() if name == "cat"]
    assert dataclasses.astuple(change) == (2, 1, None)
    assert set(diff(before, after).photos) == {"cat"}
    assert dataclasses.astuple(diff(BANK, before).photos["dog"]) == (1, 0, None)
    assert dataclasses.astuple(diff(before, BANK).photos["cat"]) == (0, 2, None)
    turned = set_photos_only(before, "cat", photos_only=True)
    assert dataclasses.astuple(diff(before, turned).photos["cat"]) == (0, 0, True)


def test_statistics_and_what_was_learned() -> None:
    trained = learn(fit(BANK, {"slope": np.array(0.5)}), learning({"cat": "c", "dog": "d"}))
    assert diff(BANK, trained).training == {"statistics": "added", "learning": "added"}
    assert diff(trained, BANK).training == {"statistics": "removed", "learning": "removed"}
    assert diff(trained, fit(trained, {"slope": np.array(0.6)})).training == dict.fromkeys(
        ("statistics", "learning"), "changed"
    )  # what was learned is stale then
    elsewhere = ClassBank(("dog", "cat"), BANK.embeddings[[1, 0]], BANK.encoder_digest)
    same = learn(fit(elsewhere, {"slope": np.array(0.5)}), learning({"cat": "c", "dog": "d"}))
    assert not diff(trained, same).training


def test_a_merge_leaves_the_others_statistics_out_and_says_so() -> None:
    other = learn(fit(add(BANK, ["owl"], unit_rows(["owl"])), {"slope": np.array(0.5)}), learning({"owl": "o"}))
    merged = merge(BANK, other)
    assert (merged.fitted, merged.learned) == (None, None)
    assert merged.history[-1].summary == (
        "added 'owl', left out statistics of the other, left out learning of the other"
    )
    ours = learn(BANK, learning({"cat": "c"}))
    assert "learning" in merge(ours, other).history[-1].summary
    assert "left out" not in merge(ours, add(BANK, ["owl"], unit_rows(["owl"]))).history[-1].summary


@pytest.mark.parametrize(
    "change",
    [
        {"sums": np.ones((1, 3), np.float32)},
        {"counts": np.ones(2)},
        {"sums": np.ones((1, 4))},
        {"translation": np.full(4, np.nan, np.float32)},
        {"counts": -np.ones(1)},
        {"numbers": {"temperature": float("inf")}},
        {"photos": 0},
    ],
)
def test_sums_that_are_unsound(change: dict[str, object]) -> None:
    with pytest.raises(BankError, match="learned"):
        dataclasses.replace(learning({"cat": "c"}), **change)


def test_sums_that_do_not_fit_the_bank() -> None:
    with pytest.raises(BankError, match="has 8 numbers, expected 4"):
        learn(BANK, learning({"cat": "c"}, dim=8))
