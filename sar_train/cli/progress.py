"""What a long command shows while it runs."""

from __future__ import annotations

import shutil
import sys

import click


class Progress:
    """Progress on stderr: one line that is rewritten on a terminal, now and then a line elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        """``quiet`` shows nothing."""
        self._quiet, self._live, self._open = quiet, sys.stderr.isatty(), False

    def __call__(self, text: str) -> None:
        """Show a line; lines that begin with ``epoch`` replace one another on a terminal."""
        if self._quiet:
            return
        passing = text.startswith("epoch ")
        if passing and not self._live:
            done, total = (int(n) for n in text.split()[1].split("/"))
            if done != 1 and done % max(1, total // 10):
                return
        if passing and self._live:
            width = shutil.get_terminal_size().columns - 1
            click.echo("\r" + text[:width].ljust(width), nl=False, err=True)
            self._open = True
        else:
            self.close()
            click.echo(text, err=True)

    def close(self) -> None:
        """End a line that is being rewritten."""
        if self._open:
            click.echo(err=True)
            self._open = False
