"""Lines about long work, under a clock that the test turns."""

from __future__ import annotations

import pytest

from sar_train.data import progress
from sar_train.data.progress import counter


def lines(monkeypatch: pytest.MonkeyPatch, total: int, steps: list[tuple[float, int]]) -> list[str]:
    """Return the text after so many seconds, when so many are done."""
    now, said = [100.0], list[str]()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    count = counter(said.append, "encoding {} test photos", total)
    for seconds, done in steps:
        now[0] += seconds
        count(done)
    return said


def test_a_line_a_second_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(0.5, done) for done in range(800, 4001, 800)]
    assert lines(monkeypatch, 4000, steps) == [
        "encoding 1,600/4,000 test photos, about 2 s left",
        "encoding 3,200/4,000 test photos, about 0 s left",
        "encoding 4,000/4,000 test photos, about 0 s left",
    ]


def test_work_that_takes_no_time_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(monkeypatch, 2, [(0.4, 1), (0.4, 2)]) == []
