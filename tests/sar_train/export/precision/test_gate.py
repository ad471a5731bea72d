from __future__ import annotations

import numpy as np
import pytest

from sar_infer.bundle_check.comparison import Figures
from sar_train.export.precision.gate import Gate

GATE = Gate(min_cosine=0.97, mean_cosine=0.99, top1_agreement=0.98, speedup=1.0)


@pytest.mark.parametrize(
    ("figures", "speedup", "missed"),
    [
        (Figures(9, 0.97, 0.99, 0.98), 1.0, []),
        (Figures(9, 0.96, 0.99, 0.98), 1.0, ["cosine on the worst: 0.96, expected at least 0.97"]),
        (Figures(9, 0.98, 0.98, 0.98), 1.0, ["mean cosine: 0.98, expected at least 0.99"]),
        (Figures(9, 0.98, 0.99, 0.97), 1.0, ["share with the same answer: 0.97, expected at least 0.98"]),
        (Figures(9, 0.98, 0.99, 0.98), 0.5, ["times as fast: 0.5, expected at least 1"]),
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
