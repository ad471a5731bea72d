from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sar_infer.results import Profile


def test_time_adds_up_by_phase_and_over_threads() -> None:
    profile = Profile()

    def work(_: int) -> None:
        with profile.phase("work"):
            time.sleep(0.02)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert 0.16 <= profile.seconds["work"] < 5
    assert list(profile.seconds) == ["work"]


def test_time_counts_when_the_work_fails() -> None:
    profile = Profile()
    with pytest.raises(KeyError), profile.phase("work"):
        raise KeyError
    assert profile.seconds["work"] >= 0
