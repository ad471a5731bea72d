"""``sar-bank evaluate``: accuracy of a bank, confused pairs, and photos that may lie in the wrong class."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sar_infer.cli.bank.common import BankArguments, on_bank, opened, own_option, photos_option
from sar_infer.cli.options import Refusal


@on_bank({"Options": "photos several html curve"})
@photos_option(
    "ROOT",
    "Photos that the bank has not used: one folder for each class, or a CSV file of class and photo. With --several "
    "folders, or a list (.csv, .json) of path and labels. Repeatable.",
)
@own_option("--several", is_flag=True, help="Evaluate each class that a photo shows, from the photo and its quarters.")
@own_option("--html", type=click.Path(path_type=Path), help="Also write one HTML page with the misclassified photos.")
@own_option(
    "--curve", is_flag=True, help="Also measure the accuracy with 1, 2, 4 … of the bank's photos of each class."
)
def evaluate(arguments: BankArguments, *, photos: Sequence[str], several: bool, html: Path | None, curve: bool) -> None:
    """Evaluate BANK_FILE on labelled photos.

    Prints the accuracy of all photos and of each class, the most confused pairs, the calibration of scores, the share
    of unknown photos, and photos that may be in the wrong folder. Photos of the bank and duplicates are left out.
    Folders that are no class count as photos of no class. --curve estimates what twice as many photos would bring.

    With --several it prints precision, recall, mean average precision and empty answers. In a list, labels are
    separated by |, and a photo of no class has none. A photo in several folders has all of their labels.

    Exit code: 0 if all photos were read; 1 if a photo could not be read; 2 if nothing was evaluated.
    """
    from sar_infer.bundle.bundle import bundle_name
    from sar_infer.cli.bank.photos import files_by_class
    from sar_infer.cli.evaluating import check_page, of_training, report, watched
    from sar_infer.evaluation.curve import bank_curve
    from sar_infer.evaluation.several import labels_of

    if several and curve:
        raise Refusal("--curve is for photos of one class each; leave out --several")
    check_page(html)
    workspace = opened(arguments)
    title, lookup = f"Evaluation of {arguments.file.name}", workspace.bank.lookup
    facts = {
        "bank": str(arguments.file),
        "bundle": str(bundle_name(workspace.bundle.location)),
        "photos": ", ".join(photos),
    }
    if several:
        labels = labels_of(photos, lookup.get)
        measured = watched(workspace.classifier.evaluate_several, labels, len(labels))
        sys.exit(report(measured, arguments.form, html, title, facts))
    files = files_by_class(lookup, {}, photos)
    evaluation = watched(workspace.classifier.evaluate, files, sum(map(len, files.values())))
    if curve and evaluation.label_check is not None:
        of_bank = bank_curve(workspace.bank, evaluation.label_check, workspace.bundle.manifest.logit_scale)
        evaluation = dataclasses.replace(evaluation, photo_curve=of_bank)
    training = of_training(evaluation, workspace.bundle, workspace.bank)
    sys.exit(report(evaluation, arguments.form, html, title, facts, training=training))
