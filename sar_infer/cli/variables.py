"""The environment variables of the commands, and those that no command has."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator

import click

_OF_TRAINING = ("SAR_DATA_", "SAR_EXPERIMENT_", "SAR_EXPORT_", "SAR_LLM_", "SAR_TRAIN_")
"""Prefixes of the variables of the training commands, which may not be installed."""
_LINK = "_SERVICE_HOST"
"""Suffix of a variable that Kubernetes sets for each service, beside others of the same prefix."""
_ALIKE = 0.7


def subcommands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command, then those below it at every depth, each with a context to format it."""
    context = command.context_class(command, info_name=name, parent=parent, **command.context_settings)
    yield command, context
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            subcommand = command.get_command(context, below)
            if subcommand is not None and not subcommand.hidden:
                yield from subcommands(subcommand, below, context)


def variable(parameter: click.Parameter, context: click.Context) -> str:
    """Return the environment variable that sets a parameter, as click derives it; "" if there is none."""
    name = parameter.envvar
    if name or not (isinstance(parameter, click.Option) and parameter.allow_from_autoenv):
        return name if isinstance(name, str) else " ".join(name or ())
    return f"{context.auto_envvar_prefix}_{parameter.name}".upper() if context.auto_envvar_prefix else ""


def unknown_variables(server: click.Command, key: str) -> Iterator[str]:
    """Yield a line for each variable ``SAR_…`` of the environment that no command has; it may be misspelt.

    Args:
        server: The command ``sar-serve``.
        key: The variable of its key.
    """
    prefixes = (name.removesuffix(_LINK) + "_" for name in os.environ if name.endswith(_LINK) and name != f"SAR{_LINK}")
    others = (*_OF_TRAINING, *prefixes)
    names = sorted(name for name in os.environ if name.startswith("SAR_") and not name.startswith(others))
    variables = {key, *_variables(server)} if names else {key}
    for name in names:
        if name not in variables:
            near = difflib.get_close_matches(name, variables, 1, _ALIKE)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"the environment variable {name} does not exist for any command{hint}"


def _variables(server: click.Command) -> Iterator[str]:
    from sar_infer.cli import bank, bundle, classify

    programs = {"sar-bank": bank.main, "sar-bundle": bundle.main, "sar-classify": classify.main, "sar-serve": server}
    for name, program in programs.items():
        for command, context in subcommands(program, name):
            yield from (variable(one, context) for one in command.params)
