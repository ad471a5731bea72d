"""``sar-bank evaluate``: accuracy of a bank, confused pairs, and photos that may lie in the wrong class."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sar_infer.cli.bank.common import BankArguments, on_bank, opened, own_option, photos_option


@on_bank({"Options": "photos html"})
@photos_option("ROOT", "Photos that the bank has not used, one folder for each class. Repeatable.")
@own_option("--html", type=click.Path(path_type=Path), help="Also write one HTML page with the misclassified photos.")
def evaluate(arguments: BankArguments, *, photos: Sequence[str], html: Path | None) -> None:
    """Evaluate BANK_FILE on labelled photos.

    Prints the accuracy of all photos and of each class, the most confused pairs, the calibration of scores, the share
    of unknown photos, and photos that may be in the wrong folder. Photos of the bank and duplicates are left out.
    Folders that are no class count as photos of no class.

    Exit code: 0 if all photos were read; 1 if a photo could not be read; 2 if nothing was evaluated.
    """
    from sar_infer.bundle.bundle import bundle_name
    from sar_infer.cli.evaluating import check_page, evaluated, labelled_photos, of_training, report

    check_page(html)
    workspace = opened(arguments)
    labelled = labelled_photos(photos, workspace.bank.lookup.get)
    evaluation = evaluated(workspace.classifier, labelled)
    facts = {
        "bank": str(arguments.file),
        "bundle": str(bundle_name(workspace.bundle.location)),
        "photos": ", ".join(photos),
    }
    training = of_training(evaluation, workspace.bundle, workspace.bank)
    failed = report(evaluation, arguments.form, html, f"Evaluation of {arguments.file.name}", facts, training=training)
    sys.exit(min(1, failed))
