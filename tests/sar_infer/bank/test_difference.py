from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.banks import example_bank, photo_set, unit_row, unit_rows

from sar_infer.bank import ClassBank, ClassInfo, Difference, add, amend, diff, remove, rename, set_photos_only
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
