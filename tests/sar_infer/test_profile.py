from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sar_infer.profile import Profile


def test_time_adds_up_by_phase_over_threads_even_if_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, ticks = Profile(), itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))

    def work(_: int) -> None:
        with profile.phase("work"):
            pass

    with pytest.raises(KeyError), profile.phase("other"):
        raise KeyError
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(work, range(3)))
    with profile.phase("work"), profile.phase("other"):
        pass
    assert profile.seconds == {"other": 1 + 1, "work": 3 * 1 + 3}
