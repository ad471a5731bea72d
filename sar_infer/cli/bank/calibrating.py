"""``sar-bank calibrate``: fit temperature, thresholds and prediction sets again, for the classes of a bank."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import click

from sar_infer.cli.bank.common import BankArguments, locked, on_bank, opened, own_option, photos_option, save
from sar_infer.cli.options import Refusal, emit, warn
from sar_infer.errors import one_line


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
    from sar_infer.bank import edits
    from sar_infer.classify.calibration import calibration_lines
    from sar_infer.cli.bank.photos import already_counted, files_by_class, read_photos

    before = opened(arguments, changing=True)
    bank = before.bank
    files = files_by_class(bank.lookup, {}, photos)
    for name in files:
        if bank.lookup.get(name) is not None and bank.entry(name).background:
            raise Refusal(f"{name!r:.80} is background, so it is never predicted; leave its folder out")
    read = read_photos(before.classifier, files)
    fit = edits.ahead(bank, lambda now: before.classifier.fit_calibration(now, read.sets, false_alarms / 100))
    with locked(before) as workspace:
        fitted = fit(workspace.bank)
        save(arguments, workspace, edits.calibrate(workspace.bank, fitted, by="sar-bank calibrate"))
    repeats = [*already_counted(workspace.bank, read), *read.repeats]
    if strange := [name for name in files if workspace.bank.lookup.get(name) is None]:
        click.echo(one_line(f"no class, so photos of other things: {edits.listed(strange)}"), err=True)
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
