"""The commands that read a bank: ``list`` and ``history``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import BankArguments, on_bank, own_option
from sar_infer.cli.options import Refusal, emit

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank, Entry


def _opened(arguments: BankArguments) -> ClassBank:
    """Return the bank of a file for a command that shows names: the file names its bundle, so nobody has to.

    Raises:
        BankError: The bank is missing, damaged, or its bundle is not where it was; or it is of another encoder than a
            bundle that is named.
    """
    from sar_infer.bank import ClassBank
    from sar_infer.bundle.bundle import open_bundle
    from sar_infer.errors import BaseMissingError

    if arguments.bundle:
        bundle = open_bundle(arguments.bundle)
        return ClassBank.load(arguments.file, bundle.manifest.encoder_digest, bundle.bank)
    try:
        return ClassBank.load(arguments.file)
    except BaseMissingError:
        return ClassBank.load(arguments.file, base=open_bundle(None).bank)


@on_bank({"Options": "photos long like added"}, "list")
@click.argument("name", metavar="[CLASS]", required=False)
@own_option(
    "--photos", is_flag=True, help="Print the photos of CLASS: digest, time and author of the step that added it."
)
@own_option("--long", is_flag=True, help="Also show aliases, phrases, thresholds and photos.")
@own_option("--like", metavar="TEXT", help="Only classes with this text in their name or an alias.")
@own_option("--added", is_flag=True, help="Only added classes.")
def list_classes(
    arguments: BankArguments, name: str | None, *, photos: bool, long: bool, like: str | None, added: bool
) -> None:
    """Print the classes of BANK_FILE, or the photos of one."""
    from sar_infer.bank.edits import photo_steps
    from sar_infer.text.names import name_key

    if photos != (name is not None) or (photos and (long or like or added)):
        raise Refusal("the photos of a class are listed by: sar-bank list BANK_FILE CLASS --photos")
    if name is not None:
        rows = photo_steps(_opened(arguments), name)
        lines = (f"{row['digest']}  {row['at'] or '-'}  {row['by'] or '-'}" for row in rows)
        emit(arguments.form, lambda: rows, lines)
        return
    key = name_key(like or "")
    chosen = [
        entry
        for entry in _opened(arguments).entries.values()
        if (entry.added or not added) and any(key in name_key(text) for text in (entry.name, *entry.aliases))
    ]
    emit(arguments.form, lambda: [_content(entry) for entry in chosen], (_line(entry, long) for entry in chosen))


@on_bank({})
def history(arguments: BankArguments) -> None:
    """Print the steps of BANK_FILE, the oldest first.

    A * marks steps that can be rolled back.
    """
    from sar_infer.bank.file import read

    steps = read(arguments.file, detached=True).history
    keys = ("n", "at", "action", "summary", "by", "to", "can_undo")
    lines = (f"{s.n:5} {'*' if s.can_undo else ' '} {s.at}  {s.action:<9}  {s.summary}" for s in steps)
    emit(arguments.form, lambda: [{key: getattr(step, key) for key in keys} for step in steps], lines)


def _content(entry: Entry) -> dict[str, Any]:
    fields = ("name", "phrases", "aliases", "background", "threshold", "added", "photos_only")
    return {field: getattr(entry, field) for field in fields} | {"photos": len(entry.photos)}


def _line(entry: Entry, long: bool) -> str:
    if not long:
        return entry.name
    details = {
        "also": ", ".join(entry.aliases),
        "phrases": " | ".join(entry.phrases),
        "threshold": "" if entry.threshold is None else f"{entry.threshold:g}",
        "added": entry.added or "",
        "photos": f"{len(entry.photos):,}" if len(entry.photos) else "",
    }
    words = [f"{key}: {value}" for key, value in details.items() if value]
    flags = [*["background"] * entry.background, *words, *["photos only"] * entry.photos_only]
    return "  ".join([entry.name, *flags])
