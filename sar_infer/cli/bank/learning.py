"""``sar-bank learn``: learn from photos that nobody labelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import (
    BankArguments,
    Workspace,
    changing,
    counted,
    on_bank,
    opened,
    own_option,
    shared_options,
    write,
)
from sar_infer.cli.options import Refusal, emit
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer.bank import Learn
    from sar_infer.class_model.spool import FeatureSpool
    from sar_infer.classify.learning import LearningReport, PhotoNote

_HIDDEN_UP_TO = 64
_MOST_CLASSES = 20
_MOST_SKIPPED = 3


@click.command()
@on_bank
@own_option(
    "--photos",
    multiple=True,
    required=True,
    metavar="PLACE",
    help="Folder, list (.txt), tar or Parquet file of photos, or results of sar-classify --embeddings.  [required]",
)
@own_option("--all-known", is_flag=True, help="Say that every photo is of one of the bank's classes: learn more.")
@own_option("--dry-run", is_flag=True, help="Print the report alone; write nothing.")
@own_option("--column", default="image", show_default=True, help="Column of the images in Parquet files.")
@own_option("--key-column", help="Column of their keys.  [default: FILE#ROW]")
@shared_options
def learn(
    arguments: BankArguments,
    *,
    photos: Sequence[str],
    all_known: bool,
    dry_run: bool,
    column: str,
    key_column: str | None,
) -> None:
    """Learn from photos that nobody labelled.

    Learns where classes lie in them. Any photos will do: photos like none of the classes, and doubtful ones, count
    little, and classes that are absent stay as they are. --all-known learns more from
    photos that are all of the bank's classes, and harms where they are not. BANK_FILE keeps sums by class, never a
    photo; a later learn replaces them, `sar-bank rollback` undoes them. Needs a class model: the bundle's, or
    that of `sar-bank fit`.
    """
    from sar_infer.bank import learn as edit

    before = opened(arguments, may_be_missing=True)
    _check(before)
    skipped: list[tuple[str, str]] = []
    with _spooled(before, photos, column, key_column, skipped) as spool:
        if not len(spool):
            raise Refusal(f"{photos[0]}: no photo that can be read")
        if dry_run:
            _, report = _learned(before, spool, all_known=all_known)
            content = {"bank": str(arguments.file), "changed": False, "learned": _content(report, skipped)}
            emit(arguments.form, lambda: content, [])
        else:
            with changing(arguments) as workspace:  # locked only now: encoding may have taken hours
                change, report = _learned(workspace, spool, all_known=all_known)
                after = edit(workspace.bank, change, by="sar-bank learn")
                write(arguments, workspace, after, learned=_content(report, skipped))
    if arguments.form == "text":
        for line in _lines(report, skipped):
            click.echo(one_line(line))


def _check(workspace: Workspace) -> None:
    """Raise InputError if there is no class model to learn with, before any photo is read."""
    from sar_infer.class_model.spool import FeatureSpool

    with FeatureSpool(workspace.bank.dim) as nothing:
        workspace.classifier.learn(nothing, bank=workspace.bank)


@contextmanager
def _spooled(
    workspace: Workspace, photos: Sequence[str], column: str, key_column: str | None, skipped: list[tuple[str, str]]
) -> Iterator[FeatureSpool]:
    """Yield the features of all photos; those that cannot be read are noted."""
    from sar_infer.bulk.features import count_photos, features
    from sar_infer.class_model.spool import FeatureSpool

    def skip(key: str, reason: str) -> None:
        skipped.append((key, reason))

    total = count_photos(photos, column, key_column)
    chunks = features(photos, workspace.classifier, skip, column=column, key_column=key_column)
    bar = counted(chunks, total or 0, "Reading photos", _HIDDEN_UP_TO, lambda chunk: len(chunk[0]))
    with FeatureSpool.of(workspace.bank.dim, bar) as spool:
        yield spool


def _learned(workspace: Workspace, spool: FeatureSpool, *, all_known: bool) -> tuple[Learn, LearningReport]:
    return workspace.classifier.learn(spool, bank=workspace.bank, all_known=all_known)


def _content(report: LearningReport, skipped: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the report for programs."""
    return asdict(report) | {"unreadable": [{"key": key, "error": reason} for key, reason in skipped]}


def _lines(report: LearningReport, skipped: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield the report for people."""
    yield (f"{report.photos:,} photos, of which {report.unknown:,} are like none of the classes")
    for key, reason in skipped[:_MOST_SKIPPED]:
        yield f"not read: {key}: {reason}"
    if len(skipped) > _MOST_SKIPPED:
        yield f"not read: {len(skipped) - _MOST_SKIPPED:,} more"
    if report.different:
        yield (
            f"Warning: these photos differ from those of the class model as a whole ({report.shift:.0%} of their "
            "shift is common to all); look at the answers, or label some"
        )
    width = max((len(item.name) for item in report.classes[:_MOST_CLASSES]), default=0)
    for item in report.classes[:_MOST_CLASSES]:
        yield (
            f"  {item.name:<{width}}  {item.photos:>7,} photos, {item.sure:4.0%} sure, "
            f"count as {item.counts_as:.1f} with labels"
        )
    if len(report.classes) > _MOST_CLASSES:
        yield f"  and {len(report.classes) - _MOST_CLASSES:,} more classes"
    if report.changed or any(item.counts_as for item in report.classes):
        yield f"{report.changed:,} answers change" + (", such as" if report.examples else "")
    else:
        more = "" if report.all_known else ", or say --all-known if every one is of the bank's classes"
        yield f"these photos teach nothing, and the bank stays as it is; label some{more}"
    yield from (f"  {note.key}: {note.before!r} -> {note.after!r} ({note.sure:.0%})" for note in report.examples)
    if report.look_first:
        yield "look first at"
        yield from (f"  {_noted(note)}" for note in report.look_first)


def _noted(note: PhotoNote) -> str:
    change = f"{note.before!r} -> {note.after!r}" if note.before != note.after else repr(note.after)
    return f"{note.key}: {change} ({note.sure:.0%}), {note.why}"
