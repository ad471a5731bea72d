"""Printing where standard output may take no more."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

import click


@contextlib.contextmanager
def printing(note: str = "") -> Iterator[None]:
    """Use ``click.echo`` in here, which flushes, and leaves a stdout that is closed alone.

    A full disk becomes one line on stderr. Who closed a pipe has seen enough, and click ends quietly.

    Args:
        note: Stands behind the reason.

    Raises:
        click.ClickException: stdout takes no more; exit code 1.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = io.StringIO()  # else Python tries once more when it ends
        raise click.ClickException(f"stdout: cannot be written ({error.strerror or error}){note}") from None
