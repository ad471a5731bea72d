"""``sar-bank``: make bank files, read them and change them."""

from __future__ import annotations

import click

from sar_infer import __version__
from sar_infer.cli.bank.calibrating import calibrate
from sar_infer.cli.bank.common import ENVIRONMENT
from sar_infer.cli.bank.creating import carry, create, fit
from sar_infer.cli.bank.editing import add, move, remove, rename, rollback, set_class, undo
from sar_infer.cli.bank.evaluating import evaluate
from sar_infer.cli.bank.learning import learn
from sar_infer.cli.bank.reading import history, list_classes
from sar_infer.cli.bank.suggesting import suggest
from sar_infer.cli.command import Group
from sar_infer.cli.options import CONTEXT

EPILOG = """\b
Examples:
  sar-bank create shop.safetensors --photos photos/
  sar-bank add shop.safetensors "latte art" "zebra = zebra | striped horse"
  sar-bank add shop.safetensors mug --photos mugs/
  sar-bank evaluate shop.safetensors --photos labelled/ --html page.html
  sar-bank rollback shop.safetensors --steps 1
  sar-classify photos/ --bank shop.safetensors
"""


@click.group(cls=Group, context_settings=CONTEXT | {"auto_envvar_prefix": ENVIRONMENT}, epilog=EPILOG)
@click.version_option(__version__, prog_name="sar-bank")
def main() -> None:
    """Make bank files, and show and change their classes.

    A bank file stores classes for a bundle (--bundle). They are new, or a change of the bundle's own classes.
    `sar-classify --bank` and `sar-serve --bank` read the file. Each change is one step of its history. A step is
    written completely or not at all, and can be rolled back.

    Exit code: 0 after success; 1 if a file could not be read or written; 2 if the call is wrong, and nothing was done.
    """


for command in (
    *(add, calibrate, carry, create, evaluate, fit, history, learn),
    *(list_classes, move, remove, rename, rollback, set_class, suggest, undo),
):
    main.add_command(command)
