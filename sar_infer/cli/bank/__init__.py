"""``sar-bank``: read bank files and change them. ``reading`` and ``editing`` hold its commands."""

from __future__ import annotations

import click

from sar_infer import __version__
from sar_infer.cli.bank.calibrating import calibrate
from sar_infer.cli.bank.common import ENVIRONMENT
from sar_infer.cli.bank.editing import add, alias, merge, rebase, remove, rename, rollback, set_class
from sar_infer.cli.bank.evaluating import evaluate
from sar_infer.cli.bank.fitting import fit
from sar_infer.cli.bank.learning import learn
from sar_infer.cli.bank.reading import diff, history, list_classes, nearest, verify
from sar_infer.cli.bank.suggesting import suggest
from sar_infer.cli.options import CONTEXT, refused_command

EPILOG = """\b
Examples:
  sar-bank add mine.safetensors "latte art" "zebra = zebra | striped horse"
  sar-bank add mine.safetensors --classes names.txt --strict
  sar-bank evaluate mine.safetensors --photos labelled/ --html page.html
  sar-bank rollback mine.safetensors --to 0
  sar-classify photos/ --bank mine.safetensors
"""


@click.group(
    context_settings=CONTEXT | {"auto_envvar_prefix": ENVIRONMENT},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="sar-bank")
def main() -> None:
    """Show and change the classes of a bank file.

    A bank file holds what was done to the classes of a bundle (--bundle), to whose encoder it belongs, and is what
    `sar-classify --bank` reads. A change is one step of its history, written whole or not at all, and can be rolled
    back.

    Exit code: 0 if all went well; 1 if something was found or could not be written, as each command says; 2 if nothing
    was done because something in the call is wrong.
    """


for command in (
    *(add, alias, calibrate, diff, evaluate, fit, history, learn, list_classes),
    *(merge, nearest, rebase, remove, rename, rollback, set_class, suggest, verify),
):
    main.add_command(command)
main.add_command(refused_command("freeze", "freeze has moved: sar-bundle freeze BUNDLE --bank BANK_FILE --out NEW"))
