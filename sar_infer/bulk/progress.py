"""Progress of a long run on stderr: inputs done and set aside, rate, time left."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from sar_infer.errors import one_line

_CLEAR = "\x1b[K"
_EVERY_TTY, _EVERY_LINE = 0.5, 10.0


def say(text: str) -> None:
    """Write to stderr; if the terminal or pipe has closed, carry on without it."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - else Python writes again when it ends, and fails


class Progress:
    """A line that is rewritten on a terminal; elsewhere, if requested, a line every ten seconds.

    Attributes:
        inputs: Inputs that this run has answered.
        rejected: Those of them without an answer.
        kept: Inputs in finished parts, those of earlier runs too.
        total: Inputs of the whole run; None if it is not known.

    Args:
        requested: Show progress even if stderr is no terminal.
    """

    def __init__(self, requested: bool = False) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = requested or self._terminal
        self._every = _EVERY_TTY if self._terminal else _EVERY_LINE
        self._start = self._last = time.monotonic()
        self._lock = threading.Lock()
        self.inputs = self.rejected = self.kept = self._before = 0
        self.total: int | None = None

    def count(self, inputs: int, rejected: int) -> None:
        """Record that some inputs are answered."""
        with self._lock:
            self.inputs += inputs
            self.rejected += rejected
            now = time.monotonic()
            if self._shown and now - self._last >= self._every:
                self._last = now
                self._print()

    def keep(self, inputs: int, *, before: bool = False) -> None:
        """Record that inputs are in a finished part, of a run ``before`` this one perhaps."""
        with self._lock:
            self.kept += inputs
            self._before += inputs if before else 0

    def warn(self, text: str) -> None:
        """Print a warning on a line of its own."""
        say(("\r" + _CLEAR if self._terminal else "") + f"Warning: {one_line(text)}\n")

    def close(self) -> None:
        """Print the last line."""
        if self._shown and self.inputs:
            self._print()
            say("\n" if self._terminal else "")

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._start

    def text(self) -> str:
        """Return the line: ``1,234 of 10,000 done, 2 set aside, 56.7/s, 0:02:35 left``."""
        done = self._before + self.inputs
        of = "" if self.total is None else f" of {self.total:,}"
        text = f"{done:,}{of} done, {self.rejected:,} set aside, {self.inputs / max(self.seconds, 1e-9):,.1f}/s"
        if self.total is not None and self.inputs:
            left = round(max(0.0, self.seconds * (self.total - done) / self.inputs))
            text += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        return text

    def _print(self) -> None:
        say(f"\r{self.text()}{_CLEAR}" if self._terminal else f"{self.text()}\n")
