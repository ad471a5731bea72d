from __future__ import annotations

import numpy as np
import pytest

from sar_train.export.precision.gate import GATES, Figures, Gate, beside

GATE = Gate(min_cosine=0.97, mean_cosine=0.99, top1_agreement=0.98, speedup=1.0)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_figures_of_rows_side_by_side() -> None:
    reference = np.eye(4, dtype=np.float32)
    rows = unit(np.array([[1, 0, 0, 0], [0, 3, 4, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float32))
    found = beside(rows, reference, lambda rows: rows)
    assert found == Figures(4, pytest.approx(0.6), pytest.approx(0.9), 0.75)


def test_logits_are_asked_for_a_few_rows_at_a_time() -> None:
    """A bank may have a million classes, and a thousand rows of their logits 4 GB."""
    rows = unit(np.random.default_rng(0).normal(size=(100, 5)))
    asked: list[int] = []

    def logits(piece: np.ndarray) -> np.ndarray:
        asked.append(len(piece))
        return piece

    assert beside(rows, -rows, logits).top1_agreement == np.mean(rows.argmax(1) == rows.argmin(1))
    assert sum(asked) == 200
    assert max(asked) <= 16


@pytest.mark.parametrize(
    ("figures", "speedup", "missed"),
    [
        (Figures(9, 0.97, 0.99, 0.98), 1.0, []),
        (Figures(9, 0.96, 0.99, 0.98), 1.0, ["cosine on the worst 0.96000, expected at least 0.97000"]),
        (Figures(9, 0.98, 0.98, 0.98), 1.0, ["mean cosine 0.98000, expected at least 0.99000"]),
        (Figures(9, 0.98, 0.99, 0.97), 1.0, ["same answer on 97.00%, expected at least 98.00%"]),
        (Figures(9, 0.98, 0.99, 0.98), 0.5, ["times as fast: 0.50, expected at least 1.00"]),
    ],
)
def test_each_bound(figures: Figures, speedup: float, missed: list[str]) -> None:
    assert GATE.failures(figures, speedup) == missed


def test_nan_passes_nothing() -> None:
    assert len(GATE.failures(Figures(9, np.nan, np.nan, np.nan), np.nan)) == 4


def test_other_bounds_for_the_worst_and_for_the_answers() -> None:
    assert GATE.with_least(None, None) == GATE
    assert GATE.with_least(0.5, 0.6) == Gate(0.5, 0.5, 0.6, 1.0)
    assert GATE.with_least(None, 0.6) == Gate(0.97, 0.99, 0.6, 1.0)


def test_float16_is_judged_more_strictly_than_int8() -> None:
    half, byte = GATES["fp16"], GATES["int8"]
    assert half.min_cosine > byte.min_cosine
    assert half.top1_agreement > byte.top1_agreement
    assert (half.speedup, byte.speedup) == (0, 1)
