"""Progress on a terminal and in a log, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from support.terminals import terminal

from sar_train.cli.common import ProgressLine, guarded, resumable


def shown(lines: list[str], capsys: pytest.CaptureFixture[str], *, quiet: bool = False) -> str:
    show = ProgressLine(quiet=quiet)
    for line in lines:
        show(line)
    show.close()
    return capsys.readouterr().err


def encoding(total: int, step: int) -> list[str]:
    return [f"encoding {done:,}/{total:,} train photos" for done in range(step, total + 1, step)]


def test_a_log_gets_a_line_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown([*encoding(5000, 8), *encoding(50, 1), "zero-shot: 60 %"], capsys).splitlines()
    assert lines[:3] == [f"encoding {done}/5,000 train photos" for done in ("8", "504", "1,000")]
    assert lines[10] == "encoding 5,000/5,000 train photos"
    assert lines[11:] == [
        *[f"encoding {done}/50 train photos" for done in (1, *range(5, 51, 5))],
        "zero-shot: 60 %",
    ]


def test_a_terminal_has_one_line_that_is_rewritten() -> None:
    with terminal() as output:
        show = ProgressLine(quiet=False)
        for line in [*encoding(4, 1), "Warning: a full disk", "epoch 1/1  loss 1.0"]:
            show(line)
        show.close()
    passing, line, last, end = "".join(output).split("\n")
    assert [line.rstrip() for line in passing.split("\r")] == ["", *encoding(4, 1)]
    assert (line, last.strip(), end) == ("Warning: a full disk", "epoch 1/1  loss 1.0", "")
    with terminal() as output:
        for line in ["Warning: a full disk", "epoch 1/1  loss 1.0"]:
            ProgressLine(quiet=True)(line)
    assert "".join(output) == "Warning: a full disk\n"


def test_a_terminal_obeys_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressLine(quiet=False)("learning from a\x1b[31mb")
    assert capsys.readouterr().err == "learning from a\\x1b[31mb\n"


@pytest.mark.parametrize(
    ("around", "more"),
    [(contextlib.nullcontext, ""), (resumable, "; the same command continues from the last saved state, if any")],
)
def test_an_interrupt_says_what_goes_on(
    around: Callable[[], AbstractContextManager[None]], more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @guarded
    def command() -> None:
        with around():
            raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="130"):
        command()
    assert capsys.readouterr().err == f"Error: interrupted; nothing is half-written{more}\n"


INTERRUPTED = """
import signal
from sar_train.cli.common import guarded

@guarded
def command():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:  # as where a decoder is waited for that hangs
        {meanwhile}

signal.signal(signal.SIGINT, signal.default_int_handler)
command()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that end a process")
@pytest.mark.parametrize(("meanwhile", "code"), [("pass", 130), ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT)])
def test_a_second_ctrl_c_ends_the_process_at_once(meanwhile: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED.format(meanwhile=meanwhile)], capture_output=True)
    assert done.returncode == code
    assert (b"interrupted" in done.stderr) == (code == 130)
