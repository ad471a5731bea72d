"""``sar-bank learn``: learn from photos that nobody labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import (
    BankArguments,
    locked,
    on_bank,
    opened,
    own_option,
    photos_option,
    write,
)
from sar_infer.cli.bank.photos import spooled
from sar_infer.cli.options import emit
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer.classify.learning import LearningReport


@on_bank({"Photos": "photos all_known dry_run"})
@photos_option(
    "PLACE", "Folder, list (.txt), tar or Parquet file of photos, or results of sar-classify --embeddings. Repeatable."
)
@own_option("--all-known", is_flag=True, help="Adapt more. Every photo must show one of the bank's classes.")
@own_option("--dry-run", is_flag=True, help="Only print the report. Write nothing.")
@own_option("--column", default="image", help="Column of the images in Parquet files.")
@own_option("--key-column", help="Column of the keys in Parquet files.  [default: FILE#ROW]")
def learn(
    arguments: BankArguments,
    *,
    photos: Sequence[str],
    all_known: bool,
    dry_run: bool,
    column: str,
    key_column: str | None,
) -> None:
    """Adapt BANK_FILE to photos without labels.

    Any photos can be used. Photos that look like no class, and doubtful ones, have little weight. Absent classes stay
    as they are. --all-known adapts more, and harms if photos show other things. BANK_FILE stores sums by class, never a
    photo. The next learn replaces them, and `sar-bank rollback` undoes them. Needs a class model, of the bundle or of
    `sar-bank fit`.
    """
    from sar_infer.bank import edits
    from sar_infer.class_model.spool import FeatureSpool
    from sar_infer.classify.learning import report_lines

    before = opened(arguments, changing=not dry_run)
    with FeatureSpool(before.bank.dim) as nothing:  # is there a class model, before any photo is read?
        before.classifier.adapt(nothing, bank=before.bank)
    skipped: list[tuple[str, str]] = []
    with spooled(before, photos, lambda *pair: skipped.append(pair), column, key_column) as spool:
        adapt = edits.ahead(before.bank, lambda bank: before.classifier.adapt(spool, bank=bank, all_known=all_known))
        if dry_run:
            _, report = adapt(before.bank)
            content = {"bank": str(arguments.file), "changed": False, "learned": _content(report, skipped)}
            emit(arguments.form, lambda: content, [])
        else:
            with locked(before) as workspace:
                change, report = adapt(workspace.bank)
                after = edits.learn(workspace.bank, change, by="sar-bank learn")
                write(arguments, workspace, after, learned=_content(report, skipped))
    if arguments.form == "text":
        for line in report_lines(report, skipped):
            click.echo(one_line(line))


def _content(report: LearningReport, skipped: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the report for programs."""
    return asdict(report) | {"unreadable": [{"key": key, "error": reason} for key, reason in skipped]}
