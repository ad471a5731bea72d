"""Against brute force in float64, whatever the blocks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trained import example_model

from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.composer import Linear, Unknown
from sar_infer.classify.ranking import nearest, rank, top_k


def class_set(
    rows: np.ndarray,
    cuts: list[int],
    background: np.ndarray | None = None,
    factor: float = 1.0,
    bias: float | None = None,
) -> ClassSet:
    several, count = tuple(np.split(rows, sorted(cuts))), len(rows)
    added = None if bias is None else np.full(count, bias, np.float32)
    linear = Linear(
        tuple((each, factor) for each in several),
        added,
        Unknown(np.ones(rows.shape[1], np.float32), -1.0, np.empty((rows.shape[1], 0), np.float16), 0.0),
    )
    return ClassSet(tuple(map(str, range(count))), several, np.arange(count), linear, example_model(), {}, background)


def coarse(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Small whole numbers: products are exact in float32, and many are equal."""
    return rng.integers(-2, 3, shape).astype(np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
    pictures=st.integers(0, 4),
    k=st.integers(1, 50),
    cells=st.integers(1, 60),
    cuts=st.lists(st.integers(1, 39), max_size=3),
    hidden=st.booleans(),
)
def test_blocks_of_any_size_give_what_brute_force_gives(
    seed: int, count: int, pictures: int, k: int, cells: int, cuts: list[int], hidden: bool
) -> None:
    rng = np.random.default_rng(seed)
    bank, rows = coarse(rng, (count, 5)), coarse(rng, (pictures, 5))
    background = rng.random(count) < 0.3 if hidden else None
    classes = class_set(bank, [cut for cut in cuts if cut < count], background, 2.0, 0.5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ranking, "_CELLS", cells)
        ranked = rank(rows, classes, k)
    similarities = rows.astype(np.float64) @ bank.T.astype(np.float64)
    logits = 2 * similarities + 0.5
    powers = np.exp(logits)
    listed = np.flatnonzero(~background) if hidden else np.arange(count)
    for row in range(pictures):
        best = sorted(listed.tolist(), key=lambda column: (-logits[row, column], column))[:k]
        assert ranked.columns[row].tolist() == best
        np.testing.assert_array_equal(ranked.logits[row], logits[row, best])
        np.testing.assert_allclose(ranked.scores[row], powers[row, best] / powers[row].sum(), rtol=1e-5, atol=1e-12)
        strange = np.exp(rows[row].sum() - 1.0)
        assert ranked.unknown[row] == pytest.approx(strange / (strange + powers[row].sum()), rel=1e-4, abs=1e-7)
        others = np.flatnonzero(background).tolist() if hidden else []
        expected_columns = sorted(others, key=lambda column: (-logits[row, column], column))[:1]
        assert ranked.best_background[row].tolist() == expected_columns
        np.testing.assert_allclose(
            ranked.best_background_scores[row], powers[row, expected_columns] / powers[row].sum(), rtol=1e-5, atol=1e-12
        )


def test_memory_does_not_grow_with_the_number_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_CELLS", 4096)
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(50_000, 4)).astype(np.float32)
    classes = class_set(bank, [17, 49_000])
    tracemalloc.start()
    ranked = rank(bank[49_990:49_998], classes, 3)
    assert tracemalloc.get_traced_memory()[1] < 8 * 50_000  # bytes; all cosines take four times as much
    tracemalloc.stop()
    exact = bank[49_990:49_998].astype(np.float64) @ bank.T.astype(np.float64)
    assert [set(row) for row in ranked.columns.tolist()] == [set(row) for row in np.argsort(-exact)[:, :3].tolist()]


def test_huge_logits_do_not_overflow_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_CELLS", 1)
    ranked = rank(np.ones((1, 1), np.float32), class_set(np.array([[-1], [1], [0]], np.float32), [], factor=1e30), 3)
    assert (ranked.columns.tolist(), ranked.scores.tolist()) == ([[1, 2, 0]], [[1, 0, 0]])


def test_nearest_leaves_the_class_itself_and_background_out() -> None:
    angles = np.radians([0, 10, 0, 40, 5])
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    classes = class_set(bank, [2], np.array([False, False, False, False, True]))
    (first, third) = nearest(classes, [0, 3], 2)
    assert [column for column, _ in first] == [2, 1]  # equal to it, then 10 degrees away
    assert [column for column, _ in third] == [1, 0]
    np.testing.assert_allclose([c for _, c in first], np.cos(np.radians([0, 10])), rtol=1e-6)
    assert nearest(class_set(bank[:1], []), [0], 3) == [[]]


@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.sampled_from([1, 4, 256, 257, 2000]),
    k=st.integers(1, 400),
    spread=st.sampled_from([1, 3, 1000]),
)
def test_top_k_is_that_of_a_stable_sort(seed: int, columns: int, k: int, spread: int) -> None:
    scores = np.random.default_rng(seed).integers(0, spread, (2, columns)).astype(np.float32)
    np.testing.assert_array_equal(top_k(scores, k), np.argsort(-scores, axis=1, kind="stable")[:, :k])


def test_top_k_of_a_row_that_is_no_number_is_its_first_columns() -> None:
    assert top_k(np.full((1, 5000), np.nan, np.float32), 3).tolist() == [[0, 1, 2]]
