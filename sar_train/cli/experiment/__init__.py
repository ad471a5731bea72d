"""``sar-experiment``: the experiments of the SAR paper, and their report."""

from __future__ import annotations

import importlib

import click

from sar_infer.cli.options import CONTEXT

COMMANDS = {
    "base-to-new": ("protocols", "Train on half of the classes, evaluate on both halves."),
    "few-shot": ("protocols", "Train on all classes from 1, 2, 4, 8 and 16 photos of each."),
    "cross-dataset": ("protocols", "Train on one dataset, evaluate on others."),
    "domain-generalisation": ("protocols", "Train on one domain, evaluate on others."),
    "run": ("protocols", "Execute the runs of sweep files."),
    "table": ("report", "Print the tables of results."),
    "report": ("report", "Write results as one HTML page, with figures and tables."),
    "pack": ("report", "Pack the results of finished runs into one file."),
}
"""Module and one line of help of each command; a module is imported when its command is used."""


class Commands(click.Group):
    """A group that imports a command when it is used, so that ``--help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of use."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands from the table above."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=Commands, context_settings=CONTEXT | {"auto_envvar_prefix": "SAR_EXPERIMENT"})
@click.version_option(package_name="sar-clip")
def main() -> None:
    """Run the experiments of the SAR paper (arXiv 2502.11969) on your data, resumably, and write their report."""
