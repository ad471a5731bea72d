from __future__ import annotations

import contextlib
import os
import sys
import time

import pytest
from support.terminals import terminal

from sar_infer.bulk.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_time_left(clock: Clock) -> None:
    progress = Progress(requested=True)
    progress.total = 4000
    progress.keep(1000, before=True)
    clock.now += 10
    progress.count(500, 2)
    progress.keep(400)
    assert progress.text() == "1,500 of 4,000 done, 2 set aside, 50.0/s, 0:00:50 left"
    assert progress.kept == 1400
    progress.total = None  # tars hide their number
    assert progress.text() == "1,500 done, 2 set aside, 50.0/s"


def test_a_line_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress, silent = Progress(requested=True), Progress()
    for _ in range(25):
        clock.now += 1
        progress.count(1, 0)
        silent.count(1, 0)
    assert capsys.readouterr().err.splitlines() == ["10 done, 0 set aside, 1.0/s", "20 done, 0 set aside, 1.0/s"]
    progress.close()
    silent.close()
    assert capsys.readouterr().err == "25 done, 0 set aside, 1.0/s\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals there")
def test_one_line_on_a_terminal(clock: Clock) -> None:
    with terminal() as output:
        progress = Progress()
        for _ in range(2):
            clock.now += 1
            progress.count(1, 0)
        progress.close()
    line = "\r{} done, 0 set aside, 1.0/s\x1b[K"
    assert "".join(output) == line.format(1) + line.format(2) * 2 + "\n"


def test_a_terminal_that_is_gone_does_not_end_the_run(clock: Clock) -> None:
    read, write = os.pipe()
    os.close(read)
    gone = open(write, "w")  # noqa: PTH123, SIM115 - of a file descriptor
    with contextlib.redirect_stderr(gone):
        progress = Progress(requested=True)
        clock.now += 60
        progress.count(500, 2)
        progress.warn("nobody reads this")
        progress.close()
        assert sys.stderr is not gone
        sys.stderr.close()
    with contextlib.suppress(BrokenPipeError):
        gone.close()
    assert (progress.inputs, progress.rejected) == (500, 2)
