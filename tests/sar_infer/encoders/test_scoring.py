from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sar_infer.encoders.scoring import softmax, top_k, unit_rows

LOGITS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-500, 500, width=32)
)


@given(logits=LOGITS)
def test_softmax_is_a_distribution_that_a_shift_leaves_alone(logits) -> None:
    result = softmax(logits)
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(softmax(logits - np.float32(16)), result, atol=1e-3)


def test_softmax_of_known_values_and_huge_ones() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1, 3]], np.float32))), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_array_equal(softmax(np.array([[1e30, -1e30]], np.float32)), [[1, 0]])


@given(scores=LOGITS, k=st.integers(1, 8))
def test_top_k_is_the_sorted_row(scores, k: int) -> None:
    columns = top_k(scores, k)
    assert columns.shape == (len(scores), min(k, scores.shape[1]))
    expected = -np.sort(-scores, axis=1)[:, :k]
    np.testing.assert_array_equal(np.take_along_axis(scores, columns, axis=1), expected)


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 400), spread=st.sampled_from([1, 3, 1000]))
def test_top_k_of_many_columns_is_that_of_a_stable_sort(seed: int, k: int, spread: int) -> None:
    scores = np.random.default_rng(seed).integers(0, spread, (2, 2000)).astype(np.float32)
    np.testing.assert_array_equal(top_k(scores, k), np.argsort(-scores, axis=1, kind="stable")[:, :k])


def test_top_k_of_a_row_that_is_no_number_is_its_first_columns() -> None:
    assert top_k(np.full((1, 5000), np.nan, np.float32), 3).tolist() == [[0, 1, 2]]


def test_top_k_breaks_ties_in_column_order() -> None:
    assert top_k(np.array([[1, 2, 2, 1]], np.float32), 4).tolist() == [[1, 2, 0, 3]]


def test_unit_rows() -> None:
    result = unit_rows(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(result, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert result.dtype == np.float32
