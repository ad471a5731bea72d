"""Products of queries and rows."""

from __future__ import annotations

import numpy as np
import pytest

from sar_infer._arrays import products


@pytest.mark.parametrize("count", range(8))
def test_products_are_inner_products(count: int) -> None:
    rng = np.random.default_rng(count)
    queries = rng.standard_normal((count, 33)).astype(np.float32)
    rows = rng.standard_normal((50, 33)).astype(np.float32)
    expected = [[sum(map(float.__mul__, query, row)) for row in rows.tolist()] for query in queries.tolist()]
    result = products(queries, rows)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.reshape(expected, (count, 50)), atol=1e-4)


def test_a_query_has_the_same_bits_alone_and_beside_two_others() -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((3, 512)).astype(np.float32)
    rows = rng.standard_normal((998, 512)).astype(np.float32)
    alone = np.concatenate([products(queries[i : i + 1], rows) for i in range(3)])
    assert np.array_equal(products(queries, rows), alone)
