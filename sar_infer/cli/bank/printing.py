"""The one way in which ``sar-bank`` prints."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

from sar_infer.cli.stdout import printing
from sar_infer.errors import one_line


def emit(form: str, content: Callable[[], Any], lines: Iterable[str]) -> None:
    """Print JSON for programs, in UTF-8 whatever the locale, or lines for people; odd names break neither.

    Args:
        form: ``text`` or ``json``.
        content: Makes what is printed as JSON.
        lines: What is printed as text; what is in them is escaped where a terminal could take it for a command.

    Raises:
        click.ClickException: stdout takes no more; what the command did is done.
    """
    with printing("; all else is done"):
        _print(form, content, lines)


def _print(form: str, content: Callable[[], Any], lines: Iterable[str]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = "utf-8" if form == "json" else sys.stdout.encoding
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
    if form == "json":
        click.echo(json.dumps(content(), ensure_ascii=False))
        return
    for line in lines:
        click.echo(one_line(line, len(line)))
