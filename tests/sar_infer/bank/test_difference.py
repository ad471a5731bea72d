from __future__ import annotations

import dataclasses
from pathlib import Path

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
    remove,
    rename,
    set_photos_only,
)
from sar_infer.bank.compare import PhotoChange
from sar_infer.errors import BankError

BANK = example_bank(("cat", "dog", "fox"))


def test_every_kind_of_change() -> None:
    bank = rename(remove(BANK, ["fox"]), "cat", "tabby")
    bank = amend(add(bank, ["owl", "dog"], unit_rows(["owl", "other"])), {"dog": ClassInfo(aliases=("mutt",))})
    cosine = pytest.approx(float(unit_row("dog") @ unit_row("other")), abs=1e-6)
    changed = {"dog": (ClassInfo(), bank.info["dog"])}
    assert diff(BANK, bank) == Difference(("owl",), ("fox",), {"cat": "tabby"}, {"dog": cosine}, changed)


def test_neither_order_nor_history_nor_the_time_of_a_change_is_a_difference() -> None:
    shuffled = ClassBank(("fox", "cat", "dog"), BANK.embeddings[[2, 0, 1]], BANK.encoder_digest)
    assert not diff(BANK, shuffled)
    first, later, plain = (
        example_bank(("cat", "dog", "fox"), {"cat": ClassInfo(added=added)})
        for added in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", None)
    )
    assert not diff(first, later)
    for one, two in ((first, plain), (plain, first)):
        assert diff(one, two).changed == {"cat": (one.info_of("cat"), two.info_of("cat"))}


def test_several_with_one_row_are_not_guessed() -> None:
    twins = ClassBank(("x", "y"), np.tile(unit_row("cat"), (2, 1)), BANK.encoder_digest)
    difference = diff(remove(BANK, ["dog", "fox"]), twins)
    assert (difference.added, difference.removed, difference.renamed) == (("x", "y"), ("cat",), {})


def test_other_encoders_cannot_be_compared() -> None:
    with pytest.raises(BankError):
        diff(BANK, ClassBank(BANK.names, BANK.embeddings, "b" * 64))


def test_photos_that_came_and_went() -> None:
    before, after = (
        add(BANK, [], unit_rows([]), photos={"cat": photo_set(*labels), "dog": photo_set("r")})
        for labels in ("pq", "qst")
    )
    assert diff(before, after).photos == {"cat": PhotoChange(2, 1)}
    assert diff(BANK, before).photos == {"cat": PhotoChange(2, 0), "dog": PhotoChange(1, 0)}
    assert diff(before, BANK).photos == {"cat": PhotoChange(0, 2), "dog": PhotoChange(0, 1)}
    turned = set_photos_only(before, "cat", photos_only=True)
    assert diff(before, turned).photos == {"cat": PhotoChange(0, 0, photos_only=True)}


def test_statistics_and_learning() -> None:
    trained = learn(fit(BANK, {"slope": np.array(0.5)}), learning({"cat": "c", "dog": "d"}))
    assert diff(BANK, trained).training == {"statistics": "added", "learning": "added"}
    assert diff(trained, BANK).training == {"statistics": "removed", "learning": "removed"}
    anew = fit(trained, {"slope": np.array(0.6)})
    assert diff(trained, anew).training == {"statistics": "changed", "learning": "changed"}  # it is stale then
    elsewhere = ClassBank(("dog", "cat"), BANK.embeddings[[1, 0]], BANK.encoder_digest)
    same = learn(fit(elsewhere, {"slope": np.array(0.5)}), learning({"cat": "c", "dog": "d"}))
    assert not diff(trained, same).training


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
def test_unsound_learning(change: dict[str, object]) -> None:
    with pytest.raises(BankError, match="learned"):
        dataclasses.replace(learning({"cat": "c"}), **change)


def test_learning_of_another_size_is_refused_and_numbers_of_any_kind_stay(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="has 8 numbers, expected 4"):
        learn(BANK, learning({"cat": "c"}, dim=8))
    bank = learn(BANK, dataclasses.replace(learning({"cat": "c"}), numbers={"temperature": np.float32(2), "rounds": 3}))
    bank.save(tmp_path / "b.safetensors")
    again = ClassBank.load(tmp_path / "b.safetensors")
    assert again.learned is not None
    assert again.learned.numbers == {"temperature": 2.0, "rounds": 3.0}
    assert again.content_digest == bank.content_digest
