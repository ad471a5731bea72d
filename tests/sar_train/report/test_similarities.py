"""Similarities, and the pairs that moved most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.results import blocks, result, similarity, tables, write

from sar_train.report.results import read
from sar_train.report.similarities import MOST_PAIRS, similarities

NAMES = [f"n{i}" for i in range(9)]
HAND = blocks([3, 3, 3])


def moved(*changes: tuple[int, int, float], shift: float = 0.0) -> np.ndarray:
    cosines = HAND + shift
    for i, j, change in changes:
        cosines[i, j] += change
        cosines[j, i] += change
    np.fill_diagonal(cosines, 1.0)
    return cosines


def test_planted_disturbances_come_in_their_order(tmp_path: Path) -> None:
    shared = -0.3  # a change of all pairs disturbs nothing
    without = moved((0, 8, 0.6), (1, 2, -0.8), (6, 7, 0.05), shift=shared)
    for name, learned in (("coop", without), ("coop+sar", moved((0, 8, 0.2)))):
        write(tmp_path, result(name, similarities=similarity(NAMES, 6, HAND, learned)))
    write(tmp_path, result("tcp"))
    (table,) = tables(tmp_path, "similarity")
    assert [[cell.text for cell in row] for row in table.rows][:3] == [
        ["n1", "n2", "base", "0.90", "-0.20", "0.90"],
        ["n0", "n8", "base, new", "0.10", "0.40", "0.30"],
        ["n6", "n7", "new", "0.90", "0.65", "0.90"],
    ]
    assert len(table.rows) == MOST_PAIRS
    assert [column.name for column in table.columns][3:] == ["hand-crafted", "CoOp", "CoOp + SAR"]


def test_the_first_seed_that_both_sides_have_is_shown(tmp_path: Path) -> None:
    learned = moved((0, 1, -0.5), (0, 2, 0.05))
    for name, seeds in (("coop", (1, 2)), ("coop+sar", (2, 3))):
        for seed in seeds:
            write(tmp_path, result(name, seed=seed, similarities=similarity(NAMES, 5, HAND, learned)))
    (cosines,) = similarities(read(tmp_path))
    assert cosines.seed == 2
    np.testing.assert_allclose(cosines.learned["CoOp"], learned)
    np.testing.assert_allclose(cosines.handcrafted, HAND)


def test_one_side_alone_and_sides_of_other_names(tmp_path: Path) -> None:
    write(tmp_path, result("coop+sar", similarities=similarity(NAMES, 5, HAND, moved((0, 1, -0.5)))))
    write(tmp_path, result("tcp", similarities=similarity(NAMES, 5, HAND, HAND)))
    write(tmp_path, result("tcp+sar", similarities=similarity([n + "x" for n in NAMES], 5, HAND, HAND)))
    assert [list(cosines.learned) for cosines in similarities(read(tmp_path))] == [["CoOp + SAR"], ["TCP"]]
    assert [cell.text for cell in tables(tmp_path, "similarity")[0].rows[0]][:2] == ["n0", "n1"]
