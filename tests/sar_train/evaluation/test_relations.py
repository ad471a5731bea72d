"""SAR's own measure against scipy's, and which names it is taken on."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.functional import normalize

from sar_train.evaluation.relations import held_out_names, spearman_of_relations


def rows(count: int, seed: int, size: int = 5) -> torch.Tensor:
    return normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)), dim=-1)


def scipys(first: torch.Tensor, second: torch.Tensor) -> float:
    pairs = [
        [float(a[i].double() @ a[j].double()) for i in range(len(a)) for j in range(i + 1, len(a))]
        for a in (first, second)
    ]
    return float(spearmanr(*pairs).statistic)


@pytest.mark.parametrize("count", [3, 4, 30])
def test_it_is_spearmans_correlation_of_the_cosines(count: int) -> None:
    first, second = rows(count, 0), rows(count, 1)
    near = normalize(first + 0.1 * second, dim=-1)
    assert spearman_of_relations(first, second) == pytest.approx(scipys(first, second), abs=1e-9)
    assert spearman_of_relations(first, near) == pytest.approx(scipys(first, near), abs=1e-9)
    if count > 4:
        assert spearman_of_relations(first, near) > 0.9 > abs(spearman_of_relations(first, second))


def test_equal_cosines_share_their_rank() -> None:
    between = normalize(torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0]]), dim=-1)
    ties = torch.cat([torch.eye(4)[torch.tensor([0, 0, 1, 2, 3])], between])
    assert len((ties @ ties.T).unique()) > 3, "two values alone would hide wrong ranks"
    for seed in range(3):
        assert spearman_of_relations(ties, rows(7, seed)) == pytest.approx(scipys(ties, rows(7, seed)), abs=1e-9)


def test_names_that_took_part_are_left_out_and_new_classes_come_first() -> None:
    everything = held_out_names([])
    assert everything[:4] == ("bourgeois", "correlation", "contrary", "elevation")
    assert held_out_names([], count=5) == everything[:5]
    base, novel = everything[:3], everything[3:6]
    used = [base[0].upper(), base[1], base[2].replace(" ", "_"), *novel]
    names = held_out_names(used, ["sea_lake", base[1], "Quite New"])
    assert len(names) == len(set(names)) == 300
    assert names[:2] == ("sea_lake", "Quite New")
    assert not {name.casefold() for name in (*base, *novel)} & {name.casefold() for name in names}
    assert set(names[2:]) <= set(held_out_names([], count=400))  # so that all runs are measured on nearly the same
    assert "hotdog" not in held_out_names(["Hot-dog"], ["hotdog"])
