from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator

import pytest

from sar_infer.bulk.items import Broken, Piece
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.sources.listing import Paths
from sar_infer.bulk.sources.tars import TarShard
from sar_infer.errors import InputError

LISTED = [Piece(0, Paths(("a",) * 3000)), Piece(1, Paths(("b",) * 999)), Piece(2, Broken("c", "gone"))]
SHARDS = [Piece(n, TarShard(str(n), 1)) for n in range(8)]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def shown(pieces: Iterable[Piece]) -> Progress:
    """Progress that has counted the pieces."""
    progress = Progress(requested=True)
    before = set(threading.enumerate())
    progress.expect(lambda: pieces)
    for counting in set(threading.enumerate()) - before:
        counting.join()
    return progress


def test_time_left_by_inputs(clock: Clock) -> None:
    progress = shown(LISTED)
    clock.now += 10
    progress.count(500, 2)
    assert progress.text() == "500 of 4,000 done, 2 set aside, 50.0/s, 0:01:10 left"


def test_time_left_by_pieces_where_shards_hide_their_number(clock: Clock) -> None:
    progress = shown([*LISTED, *SHARDS[:7]])
    clock.now += 3600
    progress.count(1234, 0)
    progress.finished()
    assert progress.text() == "1,234 done, 0 set aside, 0.3/s, 9:00:00 left"


def test_no_guess_before_there_is_one(clock: Clock) -> None:
    progress = Progress()
    clock.now += 2
    progress.count(4, 0)
    progress.finished()
    assert progress.text() == "4 done, 0 set aside, 2.0/s"  # one piece is done, but of how many?

    def gone() -> Iterator[Piece]:
        yield from LISTED
        raise InputError("the list is gone")

    assert shown(gone()).text() == "0 done, 0 set aside, 0.0/s"


def test_a_line_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(requested=True)
    for _ in range(25):
        clock.now += 1
        progress.count(1, 0)
    assert capsys.readouterr().err.splitlines() == ["10 done, 0 set aside, 1.0/s", "20 done, 0 set aside, 1.0/s"]
    progress.close()
    assert capsys.readouterr().err == "25 done, 0 set aside, 1.0/s\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals there")
def test_one_line_on_a_terminal(clock: Clock) -> None:
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal, contextlib.redirect_stderr(terminal):  # noqa: PTH123 - of a file descriptor
        progress = Progress()
        for _ in range(2):
            clock.now += 1
            progress.count(1, 0)
        progress.close()
        printed = ""
        while not printed.endswith("\n"):  # a terminal may pass on what was written in parts
            printed += os.read(ours, 1000).decode()
    os.close(ours)
    line = "\r{} done, 0 set aside, 1.0/s\x1b[K"
    assert printed == line.format(1) + line.format(2) * 2 + "\r\n"


def test_silence_where_nobody_looks(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    clock.now += 100
    progress.count(1, 0)
    progress.close()
    assert capsys.readouterr().err == ""


def test_a_terminal_that_is_gone_does_not_end_the_run(clock: Clock) -> None:
    read, write = os.pipe()
    os.close(read)
    gone = open(write, "w")  # noqa: PTH123, SIM115 - of a file descriptor
    with contextlib.redirect_stderr(gone):
        progress = shown(LISTED)
        clock.now += 60
        progress.count(500, 2)
        progress.warn("nobody reads this")
        progress.close()
        assert sys.stderr is not gone
        sys.stderr.close()
    with contextlib.suppress(BrokenPipeError):
        gone.close()
    assert (progress.inputs, progress.rejected) == (500, 2)
