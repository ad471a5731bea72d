"""The commands that only look: ``list``, ``nearest``, ``diff``, ``verify``, ``history``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import Place, on_bank, opened, own_option, shared_options
from sar_infer.cli.bank.printing import emit
from sar_infer.cli.options import Refusal
from sar_infer.errors import BankError, SchemaError

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank, ClassInfo, Difference


@click.command("list")
@on_bank
@own_option("--long", is_flag=True, help="All that is known of each class.")
@own_option("--like", metavar="TEXT", help="Only classes with this in their name or an alias.")
@own_option("--added", is_flag=True, help="Only classes that did not come from training; a freeze keeps that.")
@shared_options
def list_classes(place: Place, *, long: bool, like: str | None, added: bool) -> None:
    """Print the classes of BANK_FILE, one a line."""
    from sar_infer.bank import ClassInfo
    from sar_infer.text.names import name_key

    bank = opened(place, may_be_missing=True).bank
    plain, key = ClassInfo(), name_key(like or "")
    known = ((name, bank.info.get(name, plain)) for name in bank.names)
    known = ((name, info) for name, info in known if info.added or not added)
    chosen = [(name, info) for name, info in known if any(key in name_key(text) for text in (name, *info.aliases))]
    emit(
        place.form,
        lambda: [{"name": name} | asdict(info) for name, info in chosen],
        ("  ".join([name, *_described(info)]) if long else name for name, info in chosen),
    )


@click.command()
@on_bank
@click.argument("texts", nargs=-1)
@own_option("--image", "images", type=click.Path(), multiple=True, help="A photo in place of a text; may be repeated.")
@click.option(
    "-k", "--top-k", envvar="SAR_TOP_K", show_envvar=True, type=click.IntRange(min=1), default=5, show_default=True
)
@shared_options
def nearest(place: Place, texts: Sequence[str], images: Sequence[str], top_k: int) -> None:
    """Print the classes of BANK_FILE whose embeddings are nearest to each text or photo, with their cosines."""
    import numpy as np

    from sar_infer.bank import nearest as search

    if not texts and not images:
        raise Refusal("nothing to compare with; give a text, or --image PHOTO")
    found = opened(place, may_be_missing=True)
    rows = np.concatenate([found.classifier.embed_names(texts), found.classifier.embed_images(images)])
    content = [
        {
            "query": query,
            "nearest": [
                {"name": found.bank.names[row], "cosine": cosine}
                for row, cosine in zip(places.tolist(), cosines.tolist(), strict=True)
            ],
        }
        for query, places, cosines in zip((*texts, *images), *search(found.bank, rows, top_k), strict=True)
    ]
    emit(place.form, lambda: content, _neighbours(content))


@click.command()
@on_bank
@click.argument("other", type=click.Path(path_type=Path))
@shared_options
def diff(place: Place, other: Path) -> None:
    """Print what changed from BANK_FILE to OTHER. Exit code 0 if nothing did, else 1."""
    from sar_infer.bank import ClassBank
    from sar_infer.bank import diff as compare

    bank = opened(place).bank
    difference = compare(bank, ClassBank.load(other, bank.encoder_digest))
    emit(place.form, lambda: asdict(difference), _changes(difference))
    sys.exit(1 if difference else 0)


@click.command()
@on_bank
@shared_options
def verify(place: Place) -> None:
    """Check every byte of BANK_FILE, however large. Exit code 0 if it is sound, 1 if not."""
    if not place.file.is_file():
        raise Refusal(f"{place.file}: no such bank file")
    try:
        bank, problem = opened(place, whole=True).bank, None
    except (BankError, SchemaError) as error:
        bank, problem = None, str(error)
    content = {"bank": str(place.file), "sound": bank is not None, "problem": problem} | _summary(bank)
    if problem is not None:
        emit(place.form, lambda: content, ())
        raise click.ClickException(problem)
    line = "{bank}: sound; {classes:,} classes, {own:,} of them from training; {steps} steps of history"
    emit(place.form, lambda: content, [line.format(**content)])


@click.command()
@on_bank
@shared_options
def history(place: Place) -> None:
    """Print what was done to BANK_FILE, the oldest first; a * marks steps that can be rolled back."""
    steps = opened(place).bank.history
    content = [
        {key: value for key, value in asdict(step).items() if key != "undo"} | {"can_undo": step.undo is not None}
        for step in steps
    ]
    lines = (f"{step.n:5} {'*' if step.undo else ' '} {step.at}  {step.action:<8}  {step.summary}" for step in steps)
    emit(place.form, lambda: content, lines)


def _summary(bank: ClassBank | None) -> dict[str, Any]:
    if bank is None:
        return {}
    digests = {"encoder_digest": bank.encoder_digest, "content_digest": bank.content_digest}
    return {"classes": len(bank.names), "own": bank.own, "steps": len(bank.history)} | digests


def _described(info: ClassInfo) -> list[str]:
    """All that is known beside the name."""
    known = {
        "also": ", ".join(info.aliases),
        "phrases": " | ".join(info.phrases),
        "threshold": "" if info.threshold is None else f"{info.threshold:g}",
        "added": info.added or "",
    }
    parts = [f"{key}: {value}" for key, value in known.items() if value]
    return [*(["background"] if info.background else []), *parts]


def _neighbours(content: Sequence[dict[str, Any]]) -> Iterator[str]:
    for query in content:
        yield str(query["query"])
        for found in query["nearest"]:
            yield f"  {found['cosine']:7.4f}  {found['name']}"


def _changes(difference: Difference) -> Iterator[str]:
    yield from (f"+ {name}" for name in difference.added)
    yield from (f"- {name}" for name in difference.removed)
    yield from (f"> {old}  ->  {new}" for old, new in difference.renamed.items())
    yield from (f"~ {name}  cosine {cosine:.4f}" for name, cosine in difference.reembedded.items())
    for name, infos in difference.changed.items():
        before, after = ("  ".join(_described(info)) or "its name alone" for info in infos)
        yield f"~ {name}  {before}  ->  {after}"
