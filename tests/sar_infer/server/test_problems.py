"""Quotas: what is let in, what is refused with 429, and what ``Retry-After`` says then."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
from sar_infer.server.problems import Problem, Quota


def test_a_quota_refuses_what_exceeds_it_and_counts_what_it_let_in() -> None:
    quota = Quota(3, "too much")
    with quota.hold(2):
        assert not quota.full
        with quota.hold(1):
            assert quota.full
        with pytest.raises(Problem) as refused, quota.hold(2):
            pytest.fail("let in")
        assert quota.held == 2
    assert quota.held == 0
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    assert refused.value.detail == "too much; try again"


def test_an_idle_quota_lets_anything_in_and_an_error_gives_it_back() -> None:
    quota = Quota(3, "too much")
    with pytest.raises(ZeroDivisionError), quota.hold(100):
        assert quota.full
        _ = 1 / 0
    assert quota.held == 0


def test_the_pause_grows_with_the_time_that_work_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    images = Quota(4, "too many images are waiting")
    assert images.refusal().headers["Retry-After"] == "1"
    with images.hold(4):
        now[0] += 400
    with images.hold(4), pytest.raises(Problem) as refused, images.hold(1):
        pytest.fail("let in")
    assert refused.value.headers["Retry-After"] == "41"  # 4 images of 0.9 * 0.05 + 0.1 * 100 seconds
