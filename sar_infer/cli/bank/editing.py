"""The commands that change what is there: ``remove``, ``rename``, ``alias``, ``set``, ``merge``, ``rollback``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from sar_infer.cli.bank.common import Place, changing, on_bank, own_option, shared_options, warn_of_background, write
from sar_infer.cli.options import Refusal
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank, ClassInfo, Step


@click.command()
@on_bank
@click.argument("names", nargs=-1)
@own_option("--classes", type=click.Path(path_type=Path), help="Text file with names to remove, one a line.")
@shared_options
def remove(place: Place, names: Sequence[str], classes: Path | None) -> None:
    """Remove classes, by name or alias; if one is not there, none is removed."""
    from sar_infer.bank import remove as edit
    from sar_infer.text.names import read_class_file

    if not names and classes is None:
        raise Refusal("no class given; name one, or a file of them (--classes)")
    listed = [] if classes is None else read_class_file(classes).classes
    with changing(place) as found:
        write(place, found, edit(found.bank, [*names, *listed], by="sar-bank remove"))


@click.command()
@on_bank
@click.argument("old")
@click.argument("new")
@own_option("--embed", is_flag=True, help="Give it the embedding of the new name. Else it keeps the one that it has.")
@shared_options
def rename(place: Place, old: str, new: str, *, embed: bool) -> None:
    """Give a class another name. It keeps its place and its embedding, which was made from its old name."""
    from sar_infer.bank import rename as edit

    with changing(place) as found:
        after = edit(found.bank, old, new, by="sar-bank rename")
        if embed:
            row = found.classifier.embed_names([new])[0]
            after = edit(found.bank, old, new, row, by="sar-bank rename --embed")
        write(place, found, after)


@click.command()
@on_bank
@click.argument("name", metavar="CLASS")
@click.argument("aliases", nargs=-1, required=True, metavar="ALIAS...")
@own_option("--remove", is_flag=True, help="Take these aliases away.")
@shared_options
def alias(place: Place, name: str, aliases: Sequence[str], *, remove: bool) -> None:
    """Give a class other names, which find it and take its embedding."""
    from sar_infer.bank import amend
    from sar_infer.text.names import name_key

    with changing(place) as found:
        info = _info(found.bank, name)
        known = {name_key(text): text for text in info.aliases}
        given = {name_key(text): text for text in aliases}
        if remove and not given.keys() <= known.keys():
            raise Refusal(
                f"{name!r} has not all of these aliases; it has: {one_line(', '.join(info.aliases)) or 'none'}"
            )
        if remove:
            kept = [text for key, text in known.items() if key not in given]
        else:
            kept = [*known.values(), *(text for key, text in given.items() if key not in known)]
        after = amend(found.bank, {name: dataclasses.replace(info, aliases=tuple(kept))}, by="sar-bank alias")
        write(place, found, after)


@click.command("set")
@on_bank
@click.argument("name", metavar="CLASS")
@own_option("--threshold", type=click.FloatRange(0, 1), help="Least score for the class to be believed.")
@own_option("--no-threshold", is_flag=True, help="Believe it at any score.")
@own_option(
    "--background/--foreground", default=None, help="Background takes its share of the score, and is no answer."
)
@shared_options
def set_class(place: Place, name: str, threshold: float | None, *, no_threshold: bool, background: bool | None) -> None:
    """Say when a class is to be believed, and whether it is an answer at all."""
    from sar_infer.bank import amend

    if threshold is not None and no_threshold:
        raise Refusal("--threshold and --no-threshold contradict")
    if threshold is None and not no_threshold and background is None:
        raise Refusal("nothing to set; see sar-bank set --help")
    with changing(place) as found:
        info = _info(found.bank, name)
        if threshold is not None or no_threshold:
            info = dataclasses.replace(info, threshold=threshold)
        if background is not None:
            info = dataclasses.replace(info, background=background)
        after = amend(found.bank, {name: info}, by="sar-bank set")
        warn_of_background(after)
        write(place, found, after)


@click.command()
@on_bank
@click.argument("other", type=click.Path(path_type=Path))
@own_option(
    "--conflict",
    type=click.Choice(["keep", "take", "refuse"]),
    default="refuse",
    show_default=True,
    help="What becomes of a class that both have with different embeddings.",
)
@shared_options
def merge(place: Place, other: Path, conflict: Literal["keep", "take", "refuse"]) -> None:
    """Add the classes of the bank file OTHER, with their aliases, thresholds and so on."""
    from sar_infer.bank import ClassBank
    from sar_infer.bank import merge as edit

    with changing(place) as found:
        theirs = ClassBank.verify(other, found.bank.encoder_digest)
        write(place, found, edit(found.bank, theirs, conflict, by="sar-bank merge"))


@click.command()
@on_bank
@own_option("--to", type=click.IntRange(min=0), help="The step to go back to; 0 is the beginning.")
@own_option("--steps", type=click.IntRange(min=1), help="How many steps to take back.")
@shared_options
def rollback(place: Place, to: int | None, steps: int | None) -> None:
    """Go back to an earlier step of the history (`sar-bank history`); this is a step too, and is final."""
    from sar_infer.bank import rollback as edit

    if (to is None) == (steps is None):
        raise Refusal("expected either --to STEP or --steps COUNT")
    with changing(place, may_be_missing=False) as found:
        target = _back(found.bank.history, steps) if to is None else to
        write(place, found, edit(found.bank, target, by="sar-bank rollback"))


def _info(bank: ClassBank, name: str) -> ClassInfo:
    """What is known of a class, found by name or alias.

    Raises:
        ClassNameError: there is none; near spellings are offered.
    """
    from sar_infer.bank import ClassInfo, find

    return bank.info.get(bank.names[find(bank, name)], ClassInfo())


def _back(history: Sequence[Step], steps: int | None) -> int:
    """The step that lies some steps back; what was rolled back does not count."""
    place, left = len(history), steps or 0
    while left and place:
        to = history[place - 1].to
        place, left = (place - 1, left - 1) if to is None else (to, left)
    if left:
        raise Refusal(f"cannot go back {steps} steps, there are {(steps or 0) - left} to take back")
    return place
