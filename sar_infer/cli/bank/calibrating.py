"""``sar-bank calibrate``: fit temperature, thresholds and prediction sets again, for the classes of a bank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from sar_infer.cli.bank.common import BankArguments, before_change, locked, on_bank, own_option, photos_option, save
from sar_infer.cli.options import Refusal, emit, warn
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.bank import BankCalibration, ClassBank, PhotoSet
    from sar_infer.classifier import Classifier


@on_bank({"Options": "photos false_alarms"})
@photos_option("ROOT", "Photos that the bank has not used, one folder for each class, and folders of other things.")
@own_option(
    "--false-alarms",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="PERCENT",
    default=5.0,
    help="Photos of the classes that may be called unknown.",
)
def calibrate(arguments: BankArguments, *, photos: Sequence[str], false_alarms: float) -> None:
    """Calibrate the scores of BANK_FILE on labelled photos.

    Prints the accuracy. Fits the temperature of scores, the threshold for unknown and the prediction sets of
    --coverage, and measures them in ten folds. They replace the class model's values until the classes or their photos
    change. A rollback of that change restores them. At least 50 photos are needed. Photos of the bank are left out.
    Leave out photos that were used in training. Folders that are no class show other things: prints how many of their
    photos are called unknown, before and after.
    """
    from sar_infer.bank import calibrate as edit
    from sar_infer.bank.edits import listed
    from sar_infer.classify.calibration import calibration_lines
    from sar_infer.cli.bank.photos import already_counted, files_by_class, read_photos, spelling

    before = before_change(arguments)
    bank = before.bank
    files = files_by_class(lambda name: spelling(bank, name), {}, photos)
    for name in files:
        if bank.lookup.get(name) is not None and bank.entry(name).background:
            raise Refusal(f"{name!r:.80} is background, so it is never predicted; leave its folder out")
    read = read_photos(before, files, photos_only=False)
    with locked(before) as workspace:
        repeats = [*already_counted(workspace.bank, read), *read.repeats]
        fitted = _fitted(before.classifier, workspace.bank, read.sets, false_alarms / 100)
        save(arguments, workspace, edit(workspace.bank, fitted, by="sar-bank calibrate"))
    if strange := [name for name in files if workspace.bank.lookup.get(name) is None]:
        click.echo(one_line(f"no class, so photos of other things: {listed(strange)}"), err=True)
    if repeats:
        name, path, why = repeats[0]
        count = "1 photo" if len(repeats) == 1 else f"{len(repeats):,} photos"
        click.echo(one_line(f"left out {count}, such as {path} of {name!r}: {why}"), err=True)
    own, lines = workspace.bank.unknown_threshold, calibration_lines(fitted, str(arguments.file))
    content = {"bank": str(arguments.file), "dropped_threshold": own} | dataclasses.asdict(fitted)
    if own is not None:
        lines.append(f"dropped the threshold of unknown that was set, {own:g}")
    if not fitted.measured["other_photos"]:
        warn(
            "the photos show no other things, so how many of these are found was not measured; add folders of photos "
            "that show none of the classes to --photos"
        )
    emit(arguments.form, lambda: content, lines)


def _fitted(
    classifier: Classifier, bank: ClassBank, photos: Mapping[str, PhotoSet], false_alarms: float
) -> BankCalibration:
    """Return the calibration of a bank on photos by class; those that it has learned from are left out.

    Raises:
        Refusal: There are too few.
    """
    import numpy as np

    from sar_infer.bank import BankCalibration
    from sar_infer.bank import calibrate as without_calibration
    from sar_infer.classify.calibration import LEAST_IMAGES
    from sar_infer.classify.calibration import calibrate as fit
    from sar_infer.classify.decision import can_call_unknown
    from sar_infer.classify.ranking import logits
    from sar_infer.results import DecisionOptions

    # as if there were no calibration yet, so that logits are not of an earlier one
    classes = classifier.class_set(bank=without_calibration(bank, None))
    learned = {digest for one in bank.photos.values() for digest in one.digests}
    columns = {name: bank.lookup.get(name) for name in photos}
    rows, others = [np.empty((0, bank.dim), np.float32)], [np.empty((0, bank.dim), np.float32)]
    labels = [np.empty(0, np.int64)]
    for name, one in photos.items():
        column = columns[name]
        new = one.without(learned if column is None else bank.entry(name).photos).rows
        (others if column is None else rows).append(new)
        labels.append(np.full(0 if column is None else len(new), column or 0, np.int64))
    known, strange = np.concatenate(rows), np.concatenate(others)
    if len(known) < LEAST_IMAGES:
        raise Refusal(f"{len(known)} photos that the bank has not used; calibration needs {LEAST_IMAGES} or more")
    calibrated, measured = fit(logits(known, classes), np.concatenate(labels), logits(strange, classes), false_alarms)
    now = classifier.class_set(bank=bank)
    decide = classifier.decide(now, 1, DecisionOptions(unknown=True)) if can_call_unknown(now) else None

    def called(images: Floats) -> float | None:
        if decide is None or not len(images):
            return None
        return float(np.mean([result.reason is not None for result in decide(images)]))

    before = {"called_unknown": called(known), "others_found": called(strange)}
    return BankCalibration(
        bank.content_digest,
        classifier.model_digest(bank),
        tuple(sorted(bank.background_names)),
        **dataclasses.asdict(calibrated),
        measured=dataclasses.asdict(measured) | {"false_alarms": false_alarms, "before": before},
    )
