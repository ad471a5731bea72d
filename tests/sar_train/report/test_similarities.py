"""Similarities, and the pairs that moved most."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.results import blocks, result, similarity, tables, write

from sar_train.report.results import read
from sar_train.report.similarities import MOST_PAIRS, most_disturbed, similarities

NAMES = [f"n{i}" for i in range(9)]
HAND = blocks([3, 3, 3])


def moved(*changes: tuple[int, int, float], shift: float = 0.0) -> np.ndarray:
    found = HAND + shift
    for i, j, change in changes:
        found[i, j] += change
        found[j, i] += change
    np.fill_diagonal(found, 1.0)
    return found


def write_both(folder: Path, without: np.ndarray, with_sar: np.ndarray, seed: int = 1) -> None:
    for name, learned in (("coop", without), ("coop+sar", with_sar)):
        write(folder, result(name, seed=seed, similarities=similarity(NAMES, 5, HAND, learned)))


def test_planted_disturbances_are_found_in_their_order(tmp_path: Path) -> None:
    write_both(tmp_path, moved((0, 8, 0.6), (1, 2, -0.8), (6, 7, 0.05)), moved((0, 8, 0.2)))
    (table,) = tables(tmp_path, "similarity")
    assert [[c.text for c in row] for row in table.rows][:3] == [
        ["n1", "n2", "base", "0.90", "0.10", "0.90"],
        ["n0", "n8", "base, new", "0.10", "0.70", "0.30"],
        ["n6", "n7", "new", "0.90", "0.95", "0.90"],
    ]
    assert len(table.rows) == MOST_PAIRS
    assert [c.name for c in table.columns][3:] == ["hand-crafted", "CoOp", "CoOp + SAR"]


def test_a_change_that_all_pairs_share_is_no_disturbance(tmp_path: Path) -> None:
    write_both(tmp_path, moved((2, 4, 0.1), shift=-0.3), HAND)
    (found,) = similarities(read(tmp_path))
    assert most_disturbed(found)[0] == (2, 4)


def test_the_first_seed_that_both_sides_have_is_shown(tmp_path: Path) -> None:
    write(tmp_path, result(seed=1, similarities=similarity(NAMES, 5, HAND, HAND)))
    write_both(tmp_path, moved((0, 1, -0.5)), HAND, seed=2)
    (found,) = similarities(read(tmp_path))
    assert found.seed == 2
    assert found.without is not None
    assert found.without[0, 1] == 0.4


def test_one_side_alone(tmp_path: Path) -> None:
    write(tmp_path, result("coop+sar", similarities=similarity(NAMES, 5, HAND, moved((0, 1, -0.5)))))
    (found,) = similarities(read(tmp_path))
    assert found.without is None
    assert [name for name, _ in found.learned()] == ["CoOp + SAR"]
    assert most_disturbed(found)[0] == (0, 1)


def test_sides_of_other_names_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path, result(similarities=similarity(NAMES, 5, HAND, HAND)))
    write(tmp_path, result("coop+sar", similarities=similarity([n + "x" for n in NAMES], 5, HAND, HAND)))
    (found,) = similarities(read(tmp_path))
    assert found.with_sar is None


def test_of_few_shot_runs_those_with_the_most_shots(tmp_path: Path) -> None:
    for shots in (1, 16):
        content = similarity(NAMES, 9, HAND, HAND)
        write(tmp_path, result(protocol="few-shot", new=None, shots=shots, similarities=content))
    assert [found.scene.shots for found in similarities(read(tmp_path))] == [16]


def test_runs_without_similarities_have_no_table(tmp_path: Path) -> None:
    write(tmp_path, result())
    assert tables(tmp_path, "similarity") == []


@given(st.integers(2, 7), st.randoms(use_true_random=False))
def test_the_triangle_is_read_row_by_row(count: int, random: object) -> None:
    values = [random.randint(-1000, 1000) for _ in range(count * (count - 1) // 2)]  # type: ignore[attr-defined]
    content = {"names": NAMES[:count], "base": count, "handcrafted": values, "learned": values}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), result(similarities=content))
        (cosines,) = similarities(read(Path(folder)))
    matrix = cosines.handcrafted
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(matrix.diagonal(), np.ones(count))
    assert [round(1000 * matrix[i, j]) for i in range(count) for j in range(i + 1, count)] == values
