"""Shared by the commands of the run time: options with environment twins, one-line refusals, and printing."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from sar_infer.errors import one_line

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Refusal(click.ClickException):
    """A call that cannot be carried out: one line on stderr, exit code 2."""

    exit_code = 2


class Number(click.FloatRange):
    """A finite number within bounds; click alone would accept NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value}", param, ctx)
        return number


def option(flag: str, *others: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    """Return a ``click.option`` with its environment twin: ``--top-k`` is also ``SAR_TOP_K``."""
    name = flag.partition("/")[0][2:].upper().replace("-", "_")
    return click.option(flag, *others, envvar="SAR_" + name, show_envvar=True, **settings)


def together(*options: Callable[[Any], Any]) -> Callable[[Decorated], Decorated]:
    """Return one decorator for several options; help shows them in this order."""

    def add_all(command: Decorated) -> Decorated:
        for add in reversed(options):
            command = add(command)
        return command

    return add_all


def one_blas_thread() -> None:
    """Keep numpy's OpenBLAS to one thread, unless the user says otherwise; call it before numpy is imported.

    Its threads spin while they wait for the next product and take the cores from decoding and encoding, which are most
    of the work; ``benchmarks/blas_threads.py`` measures it.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))


def read_classes(path: str | Path, check: Callable[[str], object] = len) -> Mapping[str, tuple[str, ...]]:
    """Return phrases by class name from a class file, and print its warnings to stderr.

    Args:
        path: The file.
        check: Called with every phrase; raises ClassNameError if the encoder cannot take it.

    Raises:
        ClassFileError: the file cannot be read.
        ClassNameError: a line is wrong.
    """
    from sar_infer.text.names import read_class_file

    file = read_class_file(Path(path), check)
    for warning in file.warnings:
        click.echo(f"Warning: {one_line(warning)}", err=True)
    return file.classes


def set_encoding(form: str) -> None:
    """Let stdout encode what is printed: UTF-8 for programs; ``text``, for people, as the terminal has it.

    Characters that cannot be encoded, as in odd file names, get backslashes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = sys.stdout.encoding if form == "text" else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


@contextlib.contextmanager
def printing(note: str = "") -> Iterator[None]:
    """Turn a failure to write to stdout into one line on stderr; print with ``click.echo``, which flushes.

    A closed pipe is no failure: click ends the command quietly.

    Args:
        note: Text to put after the reason.

    Raises:
        click.ClickException: stdout cannot be written; exit code 1.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = io.StringIO()  # else Python writes again when it ends
        raise click.ClickException(f"stdout: cannot be written ({error.strerror or error}){note}") from None
