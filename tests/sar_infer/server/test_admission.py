"""Quotas: what is let in, what is refused with 429, and what ``Retry-After`` says then."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
from sar_infer.server.admission import Admission, Quota
from sar_infer.server.metrics import Metrics
from sar_infer.server.problems import Problem


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


def test_images_are_shown_in_the_metrics_and_the_pause_grows_with_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    metrics = Metrics()
    images = Admission(4, 0, metrics).images

    def shown() -> float | None:
        return metrics.registry.get_sample_value("sar_queue_depth")

    assert images.refusal().headers["Retry-After"] == "1"
    with images.hold(4):
        assert shown() == 4
        now[0] += 400
    assert shown() == 0
    with images.hold(4), pytest.raises(Problem) as refused, images.hold(1):
        pytest.fail("let in")
    assert refused.value.headers["Retry-After"] == "41"  # 4 images of 0.9 * 0.05 + 0.1 * 100 seconds


def test_request_bodies_are_bounded_by_their_bytes() -> None:
    admission = Admission(4, 100, Metrics())
    admission.body_bytes = 100
    admission.check_body_bytes()
    admission.body_bytes += 1
    with pytest.raises(Problem, check=lambda problem: problem.code == "overloaded"):
        admission.check_body_bytes()


def test_at_most_64_changes_wait() -> None:
    changes = Admission(4, 100, Metrics()).changes
    with changes.hold(63):
        assert not changes.full
        with changes.hold(1):
            assert changes.full
