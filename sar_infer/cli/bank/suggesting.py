"""``sar-bank suggest``: find groups among photos that nobody labelled, and say which photos are worth a label."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import BankArguments, again, counted, on_bank, opened, own_option, shared_options
from sar_infer.cli.options import Refusal, emit, warn
from sar_infer.images.inputs import write_class_list

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.classifier import Classifier

SHOWN_OF_A_GROUP = 12
"""Photos of a group that the page shows and that its name is given to: the most typical ones."""
_MOST_NAMES = 1000
"""Class names that the page completes."""
_MOST_LINES = 20
_HIDDEN_UP_TO = 64


@click.command()
@on_bank
@own_option(
    "--photos",
    multiple=True,
    required=True,
    metavar="PLACE",
    help="Photos that nobody labelled: a folder, a list, Parquet; or results of sar-classify --out with --embeddings.  "
    "[required]",
)
@own_option(
    "--html",
    type=click.Path(path_type=Path),
    help="The page to write; the list goes beside it, with the suffix .csv.  [default: BANK_FILE-groups.html, here]",
)
@shared_options
def suggest(arguments: BankArguments, *, photos: Sequence[str], html: Path | None) -> None:
    """Find new classes, and photos worth a label.

    Looks in photos that nobody labelled. Photos that look alike form groups; first come those that look like none of
    the classes. One HTML page shows the most typical photos of each group, with a field for its name, and saves a
    list that `sar-bank add --photos` takes. The same list, its names still empty, is written beside it. The bank
    stays as it is. Needs the extra "suggest".

    Exit code: 0 if all photos were read, 1 if one or more could not be, 2 if nothing was suggested.
    """
    page = html or Path(f"{arguments.file.stem}-groups.html")
    if page.is_dir() or not page.parent.is_dir() or page.suffix == ".csv":
        raise Refusal(f"{page}: expected an HTML file to write, in a folder that exists; choose another --html")
    workspace = opened(arguments, may_be_missing=True)
    classifier = workspace.classifier
    keys, rows, failed = _features(classifier, photos)
    classes = classifier.class_set(bank=workspace.bank)
    content = classifier.described(classifier.suggest(rows, classes), rows, classes, keys)
    lists = page.with_suffix(".csv")
    command = again(arguments, "add", "--photos", "named.csv")
    _write_page(page, content, list(classes.names[:_MOST_NAMES]), f"Groups for {arguments.file.name}", command)
    write_class_list(lists, _rows(content))
    facts = {"bank": str(arguments.file), "skipped": failed, "page": str(page), "list": str(lists)}
    emit(arguments.form, lambda: facts | content, _lines(content, page, lists, command))
    sys.exit(min(1, failed))


def _features(classifier: Classifier, photos: Sequence[str]) -> tuple[list[str], Floats, int]:
    """Return keys and unit rows (N, D) of all photos, and how many could not be read.

    Raises:
        InputError: There is no photo.
    """
    import numpy as np

    from sar_infer.bulk.features import count_photos, features
    from sar_infer.errors import InputError

    keys, rows, failed = list[str](), list[Any](), 0

    def skipped(key: str, reason: str) -> None:
        nonlocal failed
        failed += 1
        warn(f"{key}: {reason}; left out")

    chunks = features(photos, classifier, skipped)
    total = count_photos(photos) or 0
    for some_keys, some_rows in counted(chunks, total, "Encoding", _HIDDEN_UP_TO, lambda chunk: len(chunk[0])):
        keys += some_keys
        rows.append(some_rows)
    if not keys:
        raise InputError(f"{', '.join(photos)}: no photo that can be read")
    return keys, np.concatenate(rows), failed


def _write_page(path: Path, content: dict[str, Any], names: Sequence[str], title: str, command: str) -> None:
    from sar_infer.errors import ImageError
    from sar_infer.evaluation import thumbnail, write_page

    def photo(key: str) -> dict[str, Any]:
        try:
            return {"key": key, "path": _path(key), "picture": thumbnail(key) if _path(key) else None}
        except ImageError:
            return {"key": key, "path": _path(key), "picture": None}

    groups = [
        {**group, "photos": [photo(key) for key in group["photos"][:SHOWN_OF_A_GROUP]]} for group in content["groups"]
    ]
    labels = [{**label, "photo": photo(label["photo"])} for label in content["labels"]]
    data = {**content, "title": title, "names": names, "command": command, "groups": groups, "labels": labels}
    write_page(path, "groups", title, data)


def _path(key: str) -> str | None:
    """Return the absolute path of a photo; None if its key names no file, as in a shard."""
    path = Path(key)
    return str(path.resolve()) if path.is_file() else None


def _rows(content: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of the list, without names of classes: photos that are files, group by group, then to label."""
    photos = [
        (path, str(number))
        for number, group in enumerate(content["groups"], start=1)
        for key in group["photos"][:SHOWN_OF_A_GROUP]
        if (path := _path(key))
    ]
    photos += [(path, "worth a label") for label in content["labels"] if (path := _path(label["photo"]))]
    return [("", path, group) for path, group in photos]


def _lines(content: dict[str, Any], page: Path, lists: Path, command: str) -> list[str]:
    width = shutil.get_terminal_size((100, 24)).columns
    groups = content["groups"]
    new = [group for group in groups if group["like"] is None]
    count = sum(group["size"] for group in new)
    lines = [
        f"{content['photos']:,} photos; {count:,} of them look like none of the {content['classes']:,} classes, in "
        f"{_counted(len(new), 'group')}",
    ]
    if new:
        lines += ["", "group  photos  nearest classes"]
    for number, group in enumerate(new[:_MOST_LINES], start=1):
        nearest = ", ".join(f"{answer['label']} {answer['score']:.0%}" for answer in group["nearest"])
        lines += [f"{number:5}  {group['size']:6,}  {nearest}"[:width]]
        lines += [f"               {', '.join(group['photos'][:2])}"]
    if len(new) > _MOST_LINES:
        lines += [f"and {_counted(len(new) - _MOST_LINES, 'group')} more"]
    lines += ["", "worth a label first"]
    for label in content["labels"][:5]:
        lines += [f"  {label['photo']}  {' or '.join(answer['label'] for answer in label['answers'])}?"]
    return [
        *lines,
        "",
        f"page  {page}: name groups on it, save the list and add it: {command}",
        f"list  {lists}: the same without the page; fill in the column class",
    ]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
