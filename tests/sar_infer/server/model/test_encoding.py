"""Batches that are decoded and encoded in one thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sar_infer._arrays import Floats
from sar_infer.server.model.process import Decoded, Result, Task, compute


class Encoder:
    """An encoder whose rows are the images' numbers; it fails at 13, gives NaN for infinity, and takes so many."""

    def __init__(self, most: int = 100) -> None:
        self.batches: list[list[float]] = []
        self._most = most

    def __call__(self, pixels: Sequence[Floats]) -> Floats:
        numbers = [float(image[0, 0, 0]) for image in pixels]
        self.batches.append(numbers)
        if 13.0 in numbers:
            raise RuntimeError("thirteen")
        if len(numbers) > self._most:
            raise MemoryError("too many at once")
        spoilt = np.nan if np.inf in numbers else 0  # as INT8 graphs do, whose images share their ranges
        return np.array([[number + spoilt] for number in numbers], dtype=np.float32).reshape(-1, 1)


def decoded(task: Task) -> Decoded:
    """Decode anything but the number 99."""
    if task.image[0, 0, 0] == 99:  # type: ignore[call-overload]
        raise ValueError("ninety-nine")
    return task.image, b"digest" if task.digest else b""  # type: ignore[return-value]


def tasks(*numbers: float) -> list[Task]:
    return [Task(np.full((3, 1, 1), number, np.float32), digest=number == 1) for number in numbers]


def values(results: Sequence[Result]) -> list[float | str]:
    rows = [result.row for result in results]
    return [str(row) if isinstance(row, Exception) else float(row[0, 0]) for row in rows]


@pytest.mark.parametrize(
    ("encoder", "numbers", "expected"),
    [
        (Encoder(), [2, np.inf, 4], [2, np.nan, 4]),
        (Encoder(most=1), [1, 2, 3, 4], [1, 2, 3, 4]),
    ],
)
def test_a_batch_that_fails_or_is_spoilt_is_halved(
    encoder: Encoder, numbers: list[float], expected: list[float | str]
) -> None:
    assert values(compute(tasks(*numbers), decoded, encoder, 8)) == pytest.approx(expected, nan_ok=True)
