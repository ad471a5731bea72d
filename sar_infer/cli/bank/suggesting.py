"""``sar-bank suggest``: find groups among photos that nobody labelled, and say which photos are worth a label."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sar_infer.cli.bank.common import BankArguments, again, on_bank, opened, own_option, photos_option
from sar_infer.cli.bank.photos import spooled
from sar_infer.cli.options import Refusal, emit, warn
from sar_infer.images.inputs import write_class_list

_MOST_NAMES = 1000
"""Class names that the page completes."""


@on_bank({"Options": "photos html"})
@photos_option(
    "PLACE", "Photos without labels: folder, list or Parquet file, or results of sar-classify --embeddings. Repeatable."
)
@own_option(
    "--html",
    type=click.Path(path_type=Path),
    help="Page to write. The list is written next to it as .csv.  [default: BANK_FILE-groups.html, here]",
)
def suggest(arguments: BankArguments, *, photos: Sequence[str], html: Path | None) -> None:
    """Find new classes, and photos worth a label.

    Similar photos without labels form groups. Groups that look like no class come first. One HTML page shows the most
    typical photos of each group, with a field for its name. It saves a list for `sar-bank add --photos`. The same list
    without names is written next to it. BANK_FILE does not change. Needs the extra "suggest".

    Exit code: 0 if all photos were read; 1 if a photo could not be read; 2 if nothing was suggested.
    """
    import numpy as np

    from sar_infer.evaluation.groups import group_lines, group_rows, write_groups

    page = html or Path(f"{arguments.file.stem}-groups.html")
    if page.is_dir() or not page.parent.is_dir() or page.suffix == ".csv":
        raise Refusal(f"{page}: expected an HTML file to write, in a folder that exists; choose another --html")
    workspace, failed = opened(arguments, may_be_missing=True), list[str]()
    classifier = workspace.classifier

    def skipped(key: str, reason: str) -> None:
        failed.append(key)
        warn(f"{key}: {reason}; left out")

    with spooled(workspace, photos, skipped) as spool:
        keys, rows = [*spool.keys()], np.array(spool.rows)
    classes = classifier.class_set(bank=workspace.bank)
    content = classifier.suggest(rows, classes, keys)
    lists = page.with_suffix(".csv")
    command = again(arguments, "add", "--photos", "named.csv")
    write_groups(page, content, list(classes.names[:_MOST_NAMES]), f"Groups for {arguments.file.name}", command)
    write_class_list(lists, group_rows(content))
    facts = {"bank": str(arguments.file), "skipped": len(failed), "page": str(page), "list": str(lists)}
    following = [
        "",
        f"page  {page}: name groups on it, save the list and add it: {command}",
        f"list  {lists}: the same without the page; fill in the column class",
    ]
    emit(
        arguments.form,
        lambda: facts | content,
        [*group_lines(content, shutil.get_terminal_size((100, 24)).columns), *following],
    )
    sys.exit(min(1, len(failed)))
