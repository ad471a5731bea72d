"""What the commands share: options with environment twins, and one-line errors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")

EXTRA_MODULES = dict.fromkeys(
    ("torch", "torchvision", "open_clip", "timm", "onnx", "onnxscript"), "train"
) | dict.fromkeys(("jinja2", "matplotlib", "scipy", "tomli_w"), "experiment")
"""Which extra brings a module."""


def option(*names: str, **settings: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A click option that shows its environment twin in ``--help``."""
    return click.option(*names, show_envvar=True, **settings)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our own errors into one line on stderr: exit 2 for what cannot be used, 1 for an export that failed."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from sar_infer.errors import ImageError, SarInferError, WriteError
        from sar_train.errors import ExportError, SarTrainError

        try:
            return command(*args, **kwargs)
        except ModuleNotFoundError as error:
            extra = EXTRA_MODULES.get((error.name or "").split(".")[0])
            if extra is None:
                raise
            _stop(f"this command needs {error.name}: pip install 'sar-clip[{extra}]'", 2)
        except (ExportError, WriteError) as error:
            _stop(str(error), 1)
        except ImageError as error:
            _stop(f"{error}; mend this photo or remove it, then give the command again", 2)
        except (SarTrainError, SarInferError) as error:
            _stop(str(error), 2)
        except OSError as error:
            _stop(f"{error.filename or 'cannot write'}: {error.strerror or error}", 2)
        except KeyboardInterrupt:
            _stop("interrupted; nothing is half-written, and the same command goes on where it was", 130)

    return run


def sections_of(settings: Iterable[str]) -> dict[str, dict[str, str]]:
    """``SECTION.KEY=VALUE`` texts as one table a section.

    Raises:
        ConfigError: a text of another form.
    """
    from sar_train.errors import ConfigError

    sections: dict[str, dict[str, str]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        section, dot, key = name.partition(".")
        if not equals or not dot:
            raise ConfigError(f"--set {setting}: expected SECTION.KEY=VALUE, such as sar.tau=0.05")
        sections.setdefault(section, {})[key] = value
    return sections


def _stop(message: str, code: int) -> NoReturn:
    click.echo("Error: " + " ".join(message.split()), err=True)
    sys.exit(code)
