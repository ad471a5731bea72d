"""What the commands of the run time share: options with environment twins, and one-line refusals."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Refusal(click.ClickException):
    """Something is wrong with what was asked for: one line on stderr, exit code 2."""

    exit_code = 2


class Number(click.FloatRange):
    """A finite number within bounds; click lets NaN pass every bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value}", param, ctx)
        return number


def option(flag: str, *others: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    """An option with its environment twin: ``--top-k`` is also ``SAR_TOP_K``; ``others`` as for ``click.option``."""
    name = flag.partition("/")[0][2:].upper().replace("-", "_")
    return click.option(flag, *others, envvar="SAR_" + name, show_envvar=True, **settings)


def together(*options: Callable[[Any], Any]) -> Callable[[Decorated], Decorated]:
    """Several options as one decorator; help shows them in this order."""

    def add_all(command: Decorated) -> Decorated:
        for add in reversed(options):
            command = add(command)
        return command

    return add_all


def one_blas_thread() -> None:
    """Keep numpy's OpenBLAS to one thread, unless the user says otherwise; call it before numpy is imported.

    Its threads wait busily for the next product and take the cores from decoding and encoding, which are most of the
    work; ``benchmarks/blas_threads.py`` measures it.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
