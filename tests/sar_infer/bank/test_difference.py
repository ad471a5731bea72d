from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.banks import example_bank, unit_row, unit_rows

from sar_infer.bank import ClassBank, ClassInfo, Difference, add, amend, diff, remove, rename
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
    with pytest.raises(BankError, match=f"banks of different encoders: {'a' * 64} and {'b' * 64}"):
        diff(BANK, dataclasses.replace(BANK, encoder_digest="b" * 64))
