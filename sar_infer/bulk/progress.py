"""Progress of a long run on stderr: inputs done and set aside, rate, time left."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from sar_infer.bulk.items import Piece
from sar_infer.errors import SarInferError, one_line

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

    Args:
        requested: Show progress even if stderr is no terminal.
    """

    def __init__(self, requested: bool = False) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = requested or self._terminal
        self._every = _EVERY_TTY if self._terminal else _EVERY_LINE
        self._start = self._last = time.monotonic()
        self._total: tuple[int | None, int] | None = None  # inputs, unless a tar hides their number, and pieces
        self.inputs = self.rejected = self.pieces = self.passed_over = 0

    def count(self, inputs: int, rejected: int) -> None:
        """Record that some inputs are done."""
        self.inputs += inputs
        self.rejected += rejected
        now = time.monotonic()
        if self._shown and now - self._last >= self._every:
            self._last = now
            self._print(self.text())

    def pass_over(self, members: int = 1) -> None:
        """Record that some members of a shard are no images."""
        self.passed_over += members

    def warn(self, text: str) -> None:
        """Print a warning on a line of its own."""
        say(("\r" + _CLEAR if self._terminal else "") + f"Warning: {one_line(text)}\n")

    def finished(self) -> None:
        """Record that a piece is committed."""
        self.pieces += 1

    def expect(self, pieces: Callable[[], Iterable[Piece]]) -> None:
        """Count in the background how much there is to do."""
        if self._shown:
            threading.Thread(target=self._add_up, args=(pieces,), daemon=True).start()

    def close(self) -> None:
        """Print the last line."""
        if self._shown and self.inputs:
            self._print(self.text())
            say("\n" if self._terminal else "")

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._start

    def text(self) -> str:
        """Return the line: ``1,234 of 10,000 done, 2 set aside, 56.7/s, 0:02:35 left``."""
        rate = self.inputs / max(self.seconds, 1e-9)
        inputs, pieces = self._total or (None, 0)
        of = "" if inputs is None else f" of {inputs:,}"
        text = f"{self.inputs:,}{of} done, {self.rejected:,} set aside, {rate:,.1f}/s"
        share = self.pieces / max(pieces, 1) if inputs is None else self.inputs / max(inputs, 1)
        if self._total is not None and share:
            left = round(max(0.0, self.seconds * (1 / share - 1)))
            text += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        return text

    def _print(self, text: str) -> None:
        say(f"\r{text}{_CLEAR}" if self._terminal else f"{text}\n")

    def _add_up(self, pieces: Callable[[], Iterable[Piece]]) -> None:
        """Count inputs and pieces, in a thread of its own; errors are left for the run to report."""
        inputs: int | None = 0
        number = 0
        try:
            for piece in pieces():
                number += 1
                inputs = None if inputs is None or piece.unit.count is None else inputs + piece.unit.count
        except SarInferError:
            return
        self._total = inputs, number
