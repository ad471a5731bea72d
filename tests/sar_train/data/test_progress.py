"""Lines about long work, under a clock that the test turns."""

from __future__ import annotations

import pytest

from sar_train.data import progress
from sar_train.data.progress import counter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_second_and_one_at_the_end(clock: list[float]) -> None:
    told: list[str] = []
    count = counter(told.append, "encoding {} test photos", 4000)
    for done in range(400, 4001, 400):
        clock[0] += 0.5
        count(done)
    assert told == [
        "encoding 800/4,000 test photos, about 4 s left",
        "encoding 1,600/4,000 test photos, about 3 s left",
        "encoding 2,400/4,000 test photos, about 2 s left",
        "encoding 3,200/4,000 test photos, about 1 s left",
        "encoding 4,000/4,000 test photos, about 0 s left",
    ]


def test_the_end_is_told_between_two_seconds_too(clock: list[float]) -> None:
    told: list[str] = []
    count = counter(told.append, "{}", 2)
    for seconds in (1.0, 0.1):
        clock[0] += seconds
        count(len(told) + 1)
    assert [line.split(",")[0] for line in told] == ["1/2", "2/2"]


def test_what_takes_no_time_is_not_told(clock: list[float]) -> None:
    told: list[str] = []
    count = counter(told.append, "{}", 2)
    for done in (1, 2):
        clock[0] += 0.4
        count(done)
    assert told == []
