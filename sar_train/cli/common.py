"""Shared by all commands: options with environment variables, errors of one line, and progress."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from sar_infer.cli.options import Refusal, reported
from sar_infer.errors import install, one_line

P = ParamSpec("P")
R = TypeVar("R")

PATH = click.Path(path_type=Path)
EXTRA_MODULES = dict.fromkeys(("jinja2", "matplotlib", "scipy", "textalloc", "tomli_w"), "experiment")
EXTRA_MODULES |= dict.fromkeys(("torch", "torchvision", "open_clip", "timm", "onnx", "onnxscript"), "train")
"""Extra that installs a module, if the command has no extra of its own."""
EXTRA_COMMANDS = {"import": ("onnx", "tokenizers"), "onnx": ("onnx",)}
"""Modules that a command needs and the extra of its name installs."""
SHARED = ("--data-root", "--format", "--llm-model", "--llm-url", "--quiet")
"""Options whose environment variable is the same for all commands, such as ``SAR_DATA_ROOT``."""
_PASSING = re.compile(r"(\w+) ([\d,]+)/([\d,]+) ")


def option(*names: str, **settings: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a click option with an environment variable.

    The name of the command is part of it (``SAR_TRAIN_SHOTS``), unless the option is one of `SHARED`.
    """
    shared = {"envvar": "SAR_" + names[0][2:].upper().replace("-", "_")} if names[0] in SHARED else {}
    return click.option(*names, **shared | settings)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our own errors into one line on stderr: exit 1 for an export that failed, else 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from sar_infer.errors import ImageError
        from sar_train.errors import ExportError, SarTrainError

        with reported("cannot write"), _interruptible():
            try:
                return command(*args, **kwargs)
            except ModuleNotFoundError as error:
                module, context = (error.name or "").split(".")[0], click.get_current_context(silent=True)
                name = (context and context.command.name) or ""
                extra = name if module in EXTRA_COMMANDS.get(name, ()) else EXTRA_MODULES.get(module)
                if extra is None:
                    raise
                raise Refusal(f"this command needs {error.name}: {install(extra)}") from None
            except ImageError as error:
                raise Refusal(f"{error}; repair this image or remove it, then run the command again") from None
            except SarTrainError as error:
                kind = click.ClickException if isinstance(error, ExportError) else Refusal
                raise kind(one_line(" ".join(str(error).split()), None)) from None

    return run


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Add to the message of an interrupt that the same command continues."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command continues from the last saved state, if any") from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first Ctrl-C raise KeyboardInterrupt, and a second one end the process at once.

    After the first one, decoders and workers that are running are waited for, and one of them may hang.
    """
    # Only the main thread may set handlers, and a handler that is not Python's own (nohup ignores SIGINT) stays.
    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if ours and signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


class ProgressLine:
    """Progress on stderr: one line that is rewritten on a terminal, a line for each tenth of the work elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        """Show nothing but warnings if ``quiet``."""
        self._quiet, self._live = quiet, sys.stderr.isatty()
        self._open = False  # True while a line is being rewritten
        self._shown: tuple[str, int, int] | None = None

    def __call__(self, text: str) -> None:
        """Show a line; ``epoch 3/50 …`` and ``encoding 640/5,640 …`` replace the line before them."""
        if self._quiet and not text.startswith("Warning: "):
            return
        text = one_line(text)
        passing = _PASSING.match(text)
        if passing and not self._live:
            label, done, of = passing[1], *(int(passing[group].replace(",", "")) for group in (2, 3))
            before, self._shown = self._shown, (label, of, 10 * done // of)
            if self._shown == before:  # not another tenth
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
