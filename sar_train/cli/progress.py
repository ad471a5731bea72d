"""What a long command shows while it runs."""

from __future__ import annotations

import re
import shutil
import sys

import click

_PASSING = re.compile(r"(\w+) ([\d,]+)/([\d,]+) ")


class Progress:
    """Progress on stderr: one line that is rewritten on a terminal, a line each tenth of the work elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        """``quiet`` shows nothing."""
        self._quiet, self._live, self._open = quiet, sys.stderr.isatty(), False
        self._shown: tuple[str, int, int] | None = None

    def __call__(self, text: str) -> None:
        """Show a line; ``epoch 3/50 …`` and ``encoding 640/5,640 …`` replace what they went on from."""
        if self._quiet:
            return
        passing = _PASSING.match(text)
        if passing and not self._live and not self._another_tenth(*passing.groups()):
            return
        if passing and self._live:
            width = shutil.get_terminal_size().columns - 1
            click.echo("\r" + text[:width].ljust(width), nl=False, err=True)
            self._open = True
        else:
            self.close()
            click.echo(text, err=True)

    def _another_tenth(self, what: str, done: str, total: str) -> bool:
        of = int(total.replace(",", ""))
        before, self._shown = self._shown, (what, of, 10 * int(done.replace(",", "")) // of)
        return self._shown != before

    def close(self) -> None:
        """End a line that is being rewritten."""
        if self._open:
            click.echo(err=True)
            self._open = False
