"""A terminal for this process, and ``sar-bank`` as a process on one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def on_a_terminal(*arguments: str, until: str) -> tuple[int, str]:
    """Exit code and what stderr shows on a terminal, of a process that is interrupted when it shows ``until``."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "sar_infer.cli.bank", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = ""
    with subprocess.Popen(command, env=environment, stderr=theirs, stdout=subprocess.DEVNULL) as child:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the other end was closed
            while piece := os.read(ours, 4096):
                shown += piece.decode()
                if until and re.search(until, shown):
                    child.send_signal(signal.SIGINT)
                    until = ""
    os.close(ours)
    return child.returncode, shown


@contextlib.contextmanager
def terminal() -> Iterator[list[str]]:
    """Have a terminal of 80 columns as stderr, and at the end what it was sent."""
    tty, termios = pytest.importorskip("tty"), pytest.importorskip("termios")
    screen, line = os.openpty()
    tty.setraw(line)
    termios.tcsetwinsize(line, (24, 80))
    output: list[str] = []
    with os.fdopen(line, "w") as stream, contextlib.redirect_stderr(stream):
        yield output
    with contextlib.suppress(OSError):  # so reading ends where nobody can write any more
        while piece := os.read(screen, 65536):
            output.append(piece.decode())
    os.close(screen)
