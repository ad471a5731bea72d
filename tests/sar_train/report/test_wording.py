"""Names and phrases."""

from __future__ import annotations

import pytest

from sar_train.report.wording import counted, listed, method_name, seeds_text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("coop", "CoOp"),
        ("coop+sar", "CoOp + SAR"),
        ("dept:kgcoop+sar (epochs=5)", "DePT on KgCoOp + SAR (epochs=5)"),
        ("dept", "DePT"),
        ("dept:coop+sar", "DePT on CoOp + SAR"),
        ("mine+sar", "mine + SAR"),
        ("Mine", "Mine"),
    ],
)
def test_method_names(name: str, shown: str) -> None:
    assert method_name(name) == shown


@pytest.mark.parametrize(
    ("seeds", "shown"), [((), ""), ((1,), "1"), ((1, 2), "1, 2"), ((3, 2, 1), "1–3"), ((1, 2, 4), "1, 2, 4")]
)
def test_seeds(seeds: tuple[int, ...], shown: str) -> None:
    assert seeds_text(seeds) == shown


def test_lists() -> None:
    assert [listed(list("abcdefgh"[:n]), 4) for n in (0, 1, 2, 4, 8)] == [
        "none", "a", "a and b", "a, b, c and d", "a, b, c and 5 more",
    ]  # fmt: skip
    assert (counted(1, "run"), counted(1200, "run")) == ("1 run", "1,200 runs")
