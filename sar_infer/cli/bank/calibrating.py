"""``sar-bank calibrate``: fit temperature, thresholds and prediction sets again, for the classes of a bank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from sar_infer.cli.bank.common import BankArguments, Workspace, changing, on_bank, photos_option, save
from sar_infer.cli.options import Refusal, emit
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer.bank import BankCalibration, PhotoSet


@on_bank({"Photos": "photos"})
@photos_option("ROOT", "Photos that the bank has not used, one folder for each of its classes.")
def calibrate(arguments: BankArguments, *, photos: Sequence[str]) -> None:
    """Calibrate the scores of BANK_FILE on labelled photos.

    Prints the accuracy. Fits the temperature of scores, the threshold for unknown and the prediction sets of
    --coverage, and measures them in ten folds. They replace the class model's values until the classes or their photos
    change. A rollback of that change restores them. At least 50 photos are needed. Photos of the bank are left out.
    Leave out photos that were used in training.
    """
    from sar_infer.bank import calibrate as edit
    from sar_infer.classify.calibration import calibration_lines
    from sar_infer.cli.bank.photos import files_by_class, read_photos, spelling

    with changing(arguments) as workspace:
        bank = workspace.bank
        files = files_by_class(lambda name: spelling(bank, name), {}, photos)
        positions = {name: workspace.bank.lookup.find(name) for name in files}
        for name, position in positions.items():
            if workspace.bank.background is not None and workspace.bank.background[position]:
                raise Refusal(f"{name!r:.80} is background, so it is never predicted; leave its folder out")
        held_out = read_photos(workspace, files, photos_only=False)
        if held_out.repeats:
            name, path, why = held_out.repeats[0]
            count = "1 photo" if len(held_out.repeats) == 1 else f"{len(held_out.repeats):,} photos"
            click.echo(one_line(f"left out {count}, such as {path} of {name!r}: {why}"), err=True)
        fitted = _fitted(workspace, held_out.sets, positions)
        save(arguments, workspace, edit(workspace.bank, fitted, by="sar-bank calibrate"))
        content = {"bank": str(arguments.file)} | dataclasses.asdict(fitted)
        emit(arguments.form, lambda: content, calibration_lines(fitted, str(arguments.file)))


def _fitted(workspace: Workspace, photos: Mapping[str, PhotoSet], positions: Mapping[str, int]) -> BankCalibration:
    """Return the calibration of the bank on these photos, whose classes have these positions in it.

    Raises:
        Refusal: There are too few.
    """
    import numpy as np

    from sar_infer.bank import BankCalibration
    from sar_infer.bank import calibrate as without_calibration
    from sar_infer.classify.calibration import LEAST_IMAGES
    from sar_infer.classify.calibration import calibrate as fit
    from sar_infer.classify.ranking import logits

    classifier, bank = workspace.classifier, workspace.bank
    # as if there were no calibration yet, so that logits are not of an earlier one
    classes = classifier.class_set(bank=without_calibration(bank, None))
    rows = np.concatenate([one.rows for one in photos.values()])
    labels = np.concatenate([np.full(len(one.rows), positions[name], np.int64) for name, one in photos.items()])
    if len(rows) < LEAST_IMAGES:
        raise Refusal(f"{len(rows)} photos that the bank has not used; calibration needs {LEAST_IMAGES} or more")
    calibrated, measured = fit(logits(rows, classes), labels)
    return BankCalibration(
        bank.content_digest,
        classifier.model_digest(bank),
        tuple(sorted(bank.background_names)),
        **dataclasses.asdict(calibrated),
        measured=dataclasses.asdict(measured),
    )
