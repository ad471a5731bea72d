"""``sar-bank calibrate``: fit temperature, thresholds and prediction sets again, for the classes of a bank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from sar_infer.cli.bank.common import BankArguments, before_change, locked, on_bank, photos_option, save
from sar_infer.cli.options import Refusal, emit
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer.bank import BankCalibration, ClassBank, PhotoSet
    from sar_infer.classifier import Classifier


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
    from sar_infer.cli.bank.photos import already_counted, files_by_class, read_photos, spelling

    before = before_change(arguments)
    bank = before.bank
    files = files_by_class(lambda name: spelling(bank, name), {}, photos)
    for name in files:
        if bank.entry(name).background:
            raise Refusal(f"{name!r:.80} is background, so it is never predicted; leave its folder out")
    read = read_photos(before, files, photos_only=False)
    with locked(before) as workspace:
        repeats = [*already_counted(workspace.bank, read), *read.repeats]
        fitted = _fitted(before.classifier, workspace.bank, read.sets)
        save(arguments, workspace, edit(workspace.bank, fitted, by="sar-bank calibrate"))
    if repeats:
        name, path, why = repeats[0]
        count = "1 photo" if len(repeats) == 1 else f"{len(repeats):,} photos"
        click.echo(one_line(f"left out {count}, such as {path} of {name!r}: {why}"), err=True)
    own, lines = workspace.bank.unknown_threshold, calibration_lines(fitted, str(arguments.file))
    content = {"bank": str(arguments.file), "dropped_threshold": own} | dataclasses.asdict(fitted)
    if own is not None:
        lines.append(f"dropped the threshold of unknown that was set, {own:g}")
    emit(arguments.form, lambda: content, lines)


def _fitted(classifier: Classifier, bank: ClassBank, photos: Mapping[str, PhotoSet]) -> BankCalibration:
    """Return the calibration of a bank on photos by class; those that it counts for the class are left out.

    Raises:
        Refusal: There are too few.
    """
    import numpy as np

    from sar_infer.bank import BankCalibration
    from sar_infer.bank import calibrate as without_calibration
    from sar_infer.classify.calibration import LEAST_IMAGES
    from sar_infer.classify.calibration import calibrate as fit
    from sar_infer.classify.ranking import logits

    # as if there were no calibration yet, so that logits are not of an earlier one
    classes = classifier.class_set(bank=without_calibration(bank, None))
    new = {bank.lookup.find(name): one.without(bank.entry(name).photos) for name, one in photos.items()}
    rows = np.concatenate([one.rows for one in new.values()])
    labels = np.concatenate([np.full(len(one.rows), position, np.int64) for position, one in new.items()])
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
