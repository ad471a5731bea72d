"""Shared by the commands: options with environment variables, errors of one line, and printing."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from sar_infer.errors import SarInferError, WriteError, one_line
from sar_infer.storage.strict_json import printable_json

INTERRUPTED = 130
CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
"""Settings of every command."""
COUNT = click.IntRange(min=1)
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Refusal(click.ClickException):
    """A call that cannot be carried out: one line on stderr, exit code 2."""

    exit_code = 2

    def format_message(self) -> str:
        """Return the line."""
        return one_line(super().format_message(), None)


class Number(click.FloatRange):
    """A finite number within bounds; click itself would accept NaN."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value}", param, ctx)
        return number


class Paths(click.Path):
    """A path of an option that may be repeated; its environment variable has one path, whatever is in it."""

    envvar_list_splitter = "\0"


def option(flag: str, *others: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    """Return a ``click.option`` with an environment variable: ``SAR_TOP_K`` for ``--top-k``."""
    name = flag.partition("/")[0][2:].upper().replace("-", "_")
    return click.option(flag, *others, **{"envvar": "SAR_" + name} | settings)


def together(*options: Callable[[Any], Any]) -> Callable[[Decorated], Decorated]:
    """Return one decorator for several options; help shows them in this order."""

    def add_all(command: Decorated) -> Decorated:
        for add in reversed(options):
            command = add(command)
        return command

    return add_all


format_option = option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Output format.")
"""The output format of commands that print text for people or JSON for programs."""
model_options = together(
    option(
        "--bundle", type=click.Path(), help="Bundle folder, or hf://USER/NAME@REVISION.  [default: the shipped one]"
    ),
    option(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="Processor to run on: auto, cpu, cuda, openvino, or another provider of onnxruntime.",
    ),
    option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "int8", "bf16", "auto"]),
        default="fp32",
        help="Precision of the encoder. auto: int8 on a CPU, fp16 on a GPU, if the bundle has it. bf16: with "
        "--device openvino.",
    ),
)
"""The bundle, and how it runs."""
BUNDLE_ARGUMENT = click.argument("bundle", required=False, type=click.Path(), envvar="SAR_BUNDLE")
"""BUNDLE of the commands of ``sar-bundle``: a folder or a location on a hub; None is the bundle that ships."""


@contextlib.contextmanager
def reported(location: object) -> Iterator[None]:
    """Turn errors into one line on stderr: exit code 2 for what cannot be used, 1 for what could not be written.

    An interrupt ends with 130; nothing that is written in one step is half-written then.

    Args:
        location: A file or folder to name for an error of the system that names none.
    """
    try:
        yield
    except WriteError as error:
        raise click.ClickException(str(error)) from None
    except SarInferError as error:
        raise Refusal(str(error)) from None
    except BrokenPipeError:  # the reader of the output has gone; click ends quietly
        raise
    except OSError as error:
        raise Refusal(f"{error.filename or location}: {error.strerror or error}") from None
    except KeyboardInterrupt as error:
        click.echo("; ".join(["Error: interrupted", "nothing is half-written", *map(str, error.args)]), err=True)
        sys.exit(INTERRUPTED)


def one_blas_thread() -> None:
    """Keep numpy's OpenBLAS to one thread, unless the user says otherwise; call it before numpy is imported.

    Its threads spin while they wait for the next product and take the cores from decoding and encoding, which are most
    of the work.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))


def read_classes(path: str | Path, check: Callable[[str], object] = len) -> Mapping[str, tuple[str, ...]]:
    """Return phrases by class name from a class file, and print its warnings to stderr.

    Args:
        path: The file; or names with commas between, which are no file.
        check: Called with every phrase; raises ClassNameError if the encoder cannot take it.

    Raises:
        ClassFileError: the file cannot be read.
        ClassNameError: a line is wrong.
    """
    from sar_infer.text.names import parse_line, phrases_by_name, read_class_file

    if "," in str(path) and not Path(path).exists():
        classes = phrases_by_name(dict(map(parse_line, str(path).split(","))))
        for text in itertools.chain(*classes.values()):
            check(text)
        return classes
    file = read_class_file(Path(path), check)
    for warning in file.warnings:
        warn(warning)
    return file.classes


def warn(text: str) -> None:
    """Print a warning to stderr, on one line."""
    click.echo(f"Warning: {one_line(text)}", err=True)


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


def progress_bar(total: int, label: str, hidden_up_to: int = 64, **settings: Any) -> Any:
    """Return a bar on stderr, hidden where that is no terminal or for so few items."""
    hidden = total <= hidden_up_to or not sys.stderr.isatty()
    return click.progressbar(length=total, label=label, file=sys.stderr, hidden=hidden, show_pos=True, **settings)


def emit(form: str, content: Callable[[], Any], lines: Iterable[str]) -> None:
    """Print JSON for programs or lines for people.

    Args:
        form: ``text`` or ``json``.
        content: Returns what is printed as JSON.
        lines: What is printed as text; characters that a terminal could take for a command are escaped.

    Raises:
        click.ClickException: stdout cannot be written; the change itself is complete.
    """
    with printing("; all else is done"):
        set_encoding(form)
        if form == "json":
            click.echo(printable_json(content()))
            return
        for line in lines:
            click.echo(one_line(line, len(line)))
