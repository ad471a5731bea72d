"""The commands that read a bank: ``list``, ``nearest``, ``diff``, ``verify``, ``history``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import (
    BankArguments,
    on_bank,
    opened,
    own_option,
    replayed,
    shared_options,
)
from sar_infer.cli.options import Refusal, emit
from sar_infer.errors import BankError, SchemaError

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank, ClassInfo, Difference


@click.command("list")
@on_bank
@own_option("--long", is_flag=True, help="Show all that is known about each class.")
@own_option("--like", metavar="TEXT", help="Only classes with this in their name or an alias.")
@own_option("--added", is_flag=True, help="Only classes that were not trained; a frozen bundle remembers them.")
@shared_options
def list_classes(arguments: BankArguments, *, long: bool, like: str | None, added: bool) -> None:
    """Print the classes of BANK_FILE, one per line."""
    from sar_infer.bank import ClassInfo
    from sar_infer.text.names import name_key

    bank = replayed(arguments)
    plain, key = ClassInfo(), name_key(like or "")
    pairs = ((name, bank.info.get(name, plain)) for name in bank.names)
    pairs = ((name, info) for name, info in pairs if info.added or not added)
    chosen = [(name, info) for name, info in pairs if any(key in name_key(text) for text in (name, *info.aliases))]
    emit(
        arguments.form,
        lambda: [{"name": name} | asdict(info) | _photos_of(bank, name) for name, info in chosen],
        ("  ".join([name, *_described(info), *_pictured(bank, name)]) if long else name for name, info in chosen),
    )


@click.command()
@on_bank
@click.argument("texts", nargs=-1)
@own_option(
    "--image",
    "images",
    envvar="SAR_BANK_NEAREST_IMAGE",
    type=click.Path(),
    multiple=True,
    help="A photo instead of a text; may be repeated.",
)
@click.option(
    "-k",
    "--top-k",
    envvar="SAR_TOP_K",
    show_envvar=True,
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Classes to print for each text or photo.",
)
@shared_options
def nearest(arguments: BankArguments, texts: Sequence[str], images: Sequence[str], top_k: int) -> None:
    """Print the classes nearest to each text or photo.

    The nearest are those of BANK_FILE whose embeddings have the largest cosines, which are printed too.
    """
    import numpy as np

    from sar_infer.bank import nearest as search

    if not texts and not images:
        raise Refusal("nothing to compare with; give a text, or --image PHOTO")
    workspace = opened(arguments)
    rows = np.concatenate([workspace.classifier.embed_names(texts), workspace.classifier.embed_images(images)])
    content = [
        {
            "query": query,
            "nearest": [
                {"name": workspace.bank.names[row], "cosine": cosine}
                for row, cosine in zip(positions.tolist(), cosines.tolist(), strict=True)
            ],
        }
        for query, positions, cosines in zip((*texts, *images), *search(workspace.bank, rows, top_k), strict=True)
    ]
    emit(arguments.form, lambda: content, _neighbours(content))


@click.command()
@on_bank
@click.argument("other", type=click.Path(path_type=Path))
@shared_options
def diff(arguments: BankArguments, other: Path) -> None:
    """Print what changed from BANK_FILE to OTHER. Exit code 0 if nothing did, else 1."""
    from sar_infer.bank import ClassBank
    from sar_infer.bank import diff as compare

    workspace = opened(arguments)
    difference = compare(workspace.bank, ClassBank.load(other, base=workspace.bundle.bank))
    emit(arguments.form, lambda: asdict(difference), _changes(difference))
    sys.exit(1 if difference else 0)


@click.command()
@on_bank
@shared_options
def verify(arguments: BankArguments) -> None:
    """Check every byte of BANK_FILE, however large. Exit code 0 if it is sound, 1 if not."""
    try:
        bank, problem = opened(arguments, whole=True).bank, None
    except (BankError, SchemaError) as error:
        if not arguments.file.is_file():
            raise
        bank, problem = None, str(error)
    content = {"bank": str(arguments.file), "sound": bank is not None, "problem": problem} | _summary(bank)
    if problem is not None:
        emit(arguments.form, lambda: content, ())
        raise click.ClickException(problem)
    line = "{bank}: sound; {classes:,} classes, {own:,} of them from training; {steps} steps of history"
    emit(arguments.form, lambda: content, [line.format(**content)])


@click.command()
@on_bank
@shared_options
def history(arguments: BankArguments) -> None:
    """Print what was done to BANK_FILE, the oldest first.

    A * marks steps that can be rolled back.
    """
    from sar_infer.bank.file import read

    steps = read(arguments.file).log.steps
    content = [
        {key: getattr(step, key) for key in ("n", "at", "action", "summary", "by", "to", "can_undo")} for step in steps
    ]
    marks = ("*" if step.can_undo else " " for step in steps)
    lines = (f"{s.n:5} {mark} {s.at}  {s.action:<8}  {s.summary}" for s, mark in zip(steps, marks, strict=True))
    emit(arguments.form, lambda: content, lines)


def _summary(bank: ClassBank | None) -> dict[str, Any]:
    if bank is None:
        return {}
    photos = {"photos": sum(map(len, bank.photos.values()))} if bank.photos else {}
    digests = {"encoder_digest": bank.encoder_digest, "content_digest": bank.content_digest}
    return (
        {"classes": len(bank.names), "own": len(bank.names) - bank.added_count, "steps": len(bank.history)}
        | photos
        | digests
    )


def _described(info: ClassInfo) -> list[str]:
    """Return all that is known of a class beside its name, as words for people."""
    details = {
        "also": ", ".join(info.aliases),
        "phrases": " | ".join(info.phrases),
        "threshold": "" if info.threshold is None else f"{info.threshold:g}",
        "added": info.added or "",
    }
    parts = [f"{key}: {value}" for key, value in details.items() if value]
    return [*(["background"] if info.background else []), *parts]


def _photos_of(bank: ClassBank, name: str) -> dict[str, Any]:
    """Return how many photos a class has, and whether its name means nothing."""
    photos = bank.photos_of(name)
    return {"photos": len(photos), "photos_only": photos.photos_only}


def _pictured(bank: ClassBank, name: str) -> list[str]:
    """Return the same as words for people."""
    counts = _photos_of(bank, name)
    count = [f"photos: {counts['photos']:,}"] if counts["photos"] else []
    return [*count, *(["photos only"] if counts["photos_only"] else [])]


def _neighbours(content: Sequence[dict[str, Any]]) -> Iterator[str]:
    for query in content:
        yield str(query["query"])
        for neighbour in query["nearest"]:
            yield f"  {neighbour['cosine']:7.4f}  {neighbour['name']}"


def _changes(difference: Difference) -> Iterator[str]:
    yield from (f"+ {name}" for name in difference.added)
    yield from (f"- {name}" for name in difference.removed)
    yield from (f"> {old}  ->  {new}" for old, new in difference.renamed.items())
    yield from (f"~ {name}  cosine {cosine:.4f}" for name, cosine in difference.reembedded.items())
    for name, infos in difference.changed.items():
        before, after = ("  ".join(_described(info)) or "its name alone" for info in infos)
        yield f"~ {name}  {before}  ->  {after}"
    for name, change in difference.photos.items():
        counts = [f"+{change.came:,}"] * bool(change.came) + [f"-{change.went:,}"] * bool(change.went)
        turned = {None: [], True: ["photos only"], False: ["named"]}[change.photos_only]
        yield f"~ {name}  photos {' '.join([*counts, *turned])}"
    yield from (f"~ {noun}: {change}" for noun, change in difference.training.items())
