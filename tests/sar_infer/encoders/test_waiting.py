from __future__ import annotations

import threading

import pytest

from sar_infer.encoders.waiting import in_background, within


def never() -> None:
    raise AssertionError("stopped, though it ended in time")


def test_a_call_that_ends_in_time_gives_what_it_gives() -> None:
    assert within(60, lambda: 7, never) == 7
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0, never)
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 // 0).result(60)


def test_a_call_that_takes_too_long_is_stopped_and_given_up() -> None:
    stopped, ended = threading.Event(), threading.Event()

    def call() -> None:
        stopped.wait()
        ended.set()

    with pytest.raises(TimeoutError):
        within(0.01, call, stopped.set)
    assert ended.is_set()
