from __future__ import annotations

import numpy as np
import pytest

from sar_infer.bundle_check.comparison import (
    Figures,
    batch_difference,
    compare_rows,
    in_batches,
    largest_difference,
    same_answer,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_figures_of_rows_side_by_side() -> None:
    reference = np.eye(4, dtype=np.float32)
    rows = unit(np.array([[1, 0, 0, 0], [0, 3, 4, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float32))
    assert compare_rows(rows, reference, lambda rows: rows) == Figures(4, pytest.approx(0.6), pytest.approx(0.9), 0.75)
    assert np.isnan(compare_rows(rows, reference, None).top1_agreement)  # there are no classes to answer with


def test_logits_are_asked_for_a_few_rows_at_a_time() -> None:
    """A bank may have a million classes, and a thousand rows of their logits 4 GB."""
    rows = unit(np.random.default_rng(0).normal(size=(100, 5)))
    sizes: list[int] = []

    def logits(piece: np.ndarray) -> np.ndarray:
        sizes.append(len(piece))
        return piece

    assert compare_rows(rows, -rows, logits).top1_agreement == np.mean(rows.argmax(1) == rows.argmin(1))
    assert sum(sizes) == 200
    assert max(sizes) <= 16


def test_a_class_that_is_tied_is_the_same_answer() -> None:
    reference = np.array([[0.5, 0.5 - 1e-3, 0], [0.5, 0.4, 0]], dtype=np.float32)
    rows = np.array([[0, 1, 0], [0, 1, 0]], dtype=np.float32)
    assert same_answer(rows, reference, lambda some: some).tolist() == [False, False]
    assert same_answer(rows, reference, lambda some: some, tie=2e-3).tolist() == [True, False]


def test_rows_that_are_not_finite_are_the_same_as_nothing() -> None:
    rows = np.full((2, 3), np.nan, dtype=np.float32)
    figures = compare_rows(rows, rows, lambda some: some)
    assert np.isnan(figures.min_cosine)
    assert figures.top1_agreement == 0
    assert np.isnan(largest_difference(rows, rows))
    assert largest_difference(rows[:0], rows[:0]) == 0


def test_batches_of_every_size_come_first() -> None:
    assert [len(batch) for batch in in_batches(range(100))] == [1, 2, 7, 33, 33, 24]


@pytest.mark.parametrize("wrong", [1, 2, 7])
def test_an_encoder_that_depends_on_the_size_of_the_batch(wrong: int) -> None:
    inputs = np.random.default_rng(0).normal(size=(33, 4)).astype(np.float32)
    assert batch_difference(lambda batch: batch, inputs) == 0
    difference = batch_difference(lambda batch: batch + np.float32(0.25 if len(batch) == wrong else 0), inputs)
    assert difference == pytest.approx(0.25)


def test_tokens_are_cut_to_the_longest_of_the_batch() -> None:
    shapes: list[tuple[int, ...]] = []

    def graph(batch: np.ndarray) -> np.ndarray:
        shapes.append(batch.shape)
        return batch[:, :1].astype(np.float32)

    assert batch_difference(graph, np.ones((33, 35), dtype=np.int64), cut=2) == 0
    assert shapes == [(33, 35), (1, 3), (2, 4), (7, 9), (33, 35)]
