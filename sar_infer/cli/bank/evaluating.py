"""``sar-bank evaluate``: accuracy of a bank, confused pairs, and photos that may lie in the wrong class."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sar_infer.cli.bank.common import SHARED, BankArguments, on_bank, opened, own_option, shared_options
from sar_infer.cli.command import Command


@click.command(cls=Command, groups={"Options": "photos html"} | SHARED)
@on_bank
@own_option(
    "--photos",
    multiple=True,
    required=True,
    metavar="ROOT",
    help="Labelled photos that the bank has not learned from: one folder for each class.  [required]",
)
@own_option(
    "--html", type=click.Path(path_type=Path), help="Also write one HTML page, with the photos that went wrong."
)
@shared_options
def evaluate(arguments: BankArguments, *, photos: Sequence[str], html: Path | None) -> None:
    """Evaluate the answers of BANK_FILE on labelled photos.

    Prints the accuracy, also of each class, the pairs that are confused most, how far scores can be trusted, how
    many photos are called unknown, and which may lie in the wrong folder. Photos that the bank has learned from are
    left out, and so are those that come twice; folders that are no class count as photos of none.

    Exit code: 0 if all photos were read, 1 if one or more could not be, 2 if nothing was evaluated.
    """
    from sar_infer.bundle.bundle import bundle_name
    from sar_infer.cli.evaluating import check_page, evaluated, labelled_photos, report

    check_page(html)
    workspace = opened(arguments, may_be_missing=True)
    labelled = labelled_photos(photos, workspace.bank.lookup.get)
    evaluation = evaluated(workspace.classifier, labelled)
    facts = {
        "bank": str(arguments.file),
        "bundle": str(bundle_name(workspace.bundle.location)),
        "photos": ", ".join(photos),
    }
    failed = report(evaluation, arguments.form, html, f"Evaluation of {arguments.file.name}", facts)
    sys.exit(min(1, failed))
