from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.banks import example_bank

from sar_infer.bank import ClassBank, ClassInfo, find, nearest, table
from sar_infer.bank.table import at_even_steps
from sar_infer.errors import BankError, ClassNameError

AXES = np.concatenate([np.eye(4, dtype=np.float32), -np.eye(4, dtype=np.float32)])


@given(
    picks=st.lists(st.integers(0, 7), max_size=30), rows=st.lists(st.integers(0, 7), max_size=6), k=st.integers(0, 9)
)
def test_the_nearest_are_those_of_a_full_sort(picks: list[int], rows: list[int], k: int) -> None:
    """With many ties, and blocks of 7 classes and 2 rows."""
    bank = ClassBank(tuple(map(str, range(len(picks)))), AXES[picks].reshape(-1, 4), "e" * 64)
    queries = AXES[rows].reshape(-1, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_CELLS", 14)
        patch.setattr(table, "_ROWS", 2)
        positions, cosines = nearest(bank, queries, k)
    exact = queries.astype(np.float64) @ bank.embeddings.T.astype(np.float64)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(cosines, np.take_along_axis(exact, order, axis=1))


BANK = example_bank(("Cardigan", "cardigan", "red fox"), {"red fox": ClassInfo(aliases=("Reynard", "vulpes vulpes"))})


@pytest.mark.parametrize(
    ("text", "row"),
    [("Cardigan", 0), ("cardigan", 1), (" RED  Fox ", 2), ("reynard", 2), ("Vulpes  Vulpes", 2)],
)
def test_found_in_any_spelling(text: str, row: int) -> None:
    assert (find(BANK, text), BANK.lookup.get(text)) == (row, row)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CARDIGAN", "'Cardigan' and 'cardigan'"),
        ("red fix", "red fix.* mean 'red fox'"),
        ("reynart", "red fox"),
        ("zebra", "'zebra'[^']*$"),
    ],
)
def test_not_found(text: str, message: str) -> None:
    with pytest.raises(ClassNameError, match=message):
        find(BANK, text)


def test_few_near_spellings_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = example_bank(["owl", "owls", "owlet", "bowl", "fowl", "o", "owl with a much longer name"])
    assert bank.lookup.near("owl") == ["owl", "owls", "fowl"]
    assert bank.lookup.near("owl", 1) == ["owl"]
    for name, text, is_near in (  # three letters more, or a third
        ("abcdefgh", "abcde", True),
        ("abcdefghi", "abcde", False),
        ("abcdefghijklmnop", "abcdefghijkl", True),
        ("abcdefghijklmnopq", "abcdefghijkl", False),
    ):
        assert example_bank([name]).lookup.near(text) == [name] * is_near
    monkeypatch.setattr(table, "_MOST_COMPARED", 3)  # of a large bank, those that start alike
    bank = example_bank([*(f"x{number:03}" for number in range(100)), "owls", "owlet"])
    assert bank.lookup.near("owl") == ["owls", "owlet"]


def test_an_alias_stands_for_one_class() -> None:
    for aliases in ({"a": ("b",)}, {"a": ("x",), "b": ("X ",)}, {"a": ("A",)}, {"a": ("x", "x")}):
        with pytest.raises(BankError, match="stands for"):
            example_bank("ab", {name: ClassInfo(aliases=texts) for name, texts in aliases.items()})


def test_even_steps() -> None:
    assert at_even_steps(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert at_even_steps(1_000_001, 3).tolist() == [0, 500_000, 1_000_000]
