"""Settings of a run as options of commands, made from the one list of them in `sar_train.config.run`."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Collection
from typing import Any, Literal, ParamSpec, TypeVar

import click

from sar_infer.cli.command import Key
from sar_train.cli.common import option
from sar_train.config.run import SETTINGS, RunConfig

P = ParamSpec("P")
R = TypeVar("R")
TUNED_ONCE = frozenset(
    {*("novel_count", "exclude_eval_names", "llm_url", "llm_model"), *("views", "base_classes", "micro_batch")}
)
"""Settings that are keys of ``--config`` and ``--set``, and no options of ``sar-train``."""


def setting_option(name: str, **changes: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return the option of a setting; it is None where it is not given, so that a TOML file may say.

    Args:
        name: of a field of `RunConfig`.
        **changes: other arguments for click.
    """
    about, default = SETTINGS[name].metadata, SETTINGS[name].default
    plain, kind = "--" + name.replace("_", "-"), typing.get_type_hints(RunConfig)[name]
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = typing.get_args(kind)[0]  # without None
    settings: dict[str, Any] = {"help": help_of(name)}
    flags = about["flags"] or (plain,)
    if kind is bool:
        flags = about["flags"] or (f"{plain}/--no-{plain[2:]}" if default else plain,)
        settings |= {"default": None} | ({"is_flag": True} if "/" not in flags[0] else {})
    elif choices := about["choices"] or (typing.get_args(kind) if typing.get_origin(kind) is Literal else ()):
        settings["type"] = click.Choice(choices)
    else:
        settings["type"] = click.Path() if about["is_path"] else kind
    return option(*flags, **settings | changes)


def help_of(name: str) -> str:
    """Return the help of a setting, which ends with its default."""
    about, default = SETTINGS[name].metadata, SETTINGS[name].default
    shown = about["shown"] or ("" if default in (None, False, "") else str(default))
    return str(about["help"]) + f"  [default: {shown}]" * bool(shown)


def setting_options(
    names: Collection[str] = SETTINGS, keys: Collection[str] = TUNED_ONCE
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return one decorator for several settings, of which some are `keys`, in the order of the help."""

    def add(command: Callable[P, R], name: str) -> Callable[P, R]:
        return setting_option(name, **({"cls": Key} if name in keys else {}))(command)

    return lambda command: functools.reduce(add, reversed([*names]), command)
