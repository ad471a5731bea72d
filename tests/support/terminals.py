"""``sar-bank`` as a process on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def on_a_terminal(*arguments: str, until: str) -> tuple[int, str]:
    """Exit code and what stderr shows on a terminal, of a process that is interrupted when it shows ``until``."""
    ours, theirs = pty.openpty()
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
