"""``sar-bank add``: check names, embed them in chunks, and write them all or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sar_infer.cli.bank.common import (
    Opened,
    Place,
    changing,
    on_bank,
    own_option,
    shared_options,
    warn_of_background,
    write,
)
from sar_infer.cli.bank.given import given_classes
from sar_infer.cli.bank.linting import linter_for, shown
from sar_infer.cli.bank.progress import counted
from sar_infer.cli.options import Refusal
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.bank import ClassBank, ClassInfo
    from sar_infer.lint import Finding, Linter

    Phrases = Mapping[str, tuple[str, ...]]

_MOST_SHOWN = 20


@click.command()
@on_bank
@click.argument("names", nargs=-1)
@own_option("--classes", type=click.Path(path_type=Path), help="Text file with names, one a line.")
@own_option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="Bank of another bundle: the classes added to it, embedded anew, and what is known of all.",
)
@own_option("--background", is_flag=True, help="They take their share of the score, and are no answers.")
@own_option("--threshold", type=click.FloatRange(0, 1), help="Least score for them to be believed.")
@own_option(
    "--lint/--no-lint", default=True, help="Look for names that are odd, too long or double.  [default: --lint]"
)
@own_option("--strict", is_flag=True, help="Add nothing if there is a warning.")
@shared_options
def add(
    place: Place,
    names: Sequence[str],
    classes: Path | None,
    *,
    source: Path | None,
    lint: bool,
    strict: bool,
    background: bool,
    threshold: float | None,
) -> None:
    """Add classes to BANK_FILE: "name", or "name = phrase | phrase" to average several phrasings.

    A class that the bank has already gets the new phrases, and keeps its place.
    """
    if not names and classes is None and source is None:
        raise Refusal("no class given; name one, a file of them (--classes), or another bank (--from)")
    if strict and not lint:
        raise Refusal("--strict and --no-lint contradict")
    from sar_infer.bank import ClassBank, amend
    from sar_infer.bank import add as edit
    from sar_infer.bank.edits import places_of

    with changing(place) as found:
        given = given_classes(names, classes, len if lint else found.classifier.check_name)
        other = ClassBank.verify(source) if source else None
        if other is not None:
            given = {**{name: other.phrases(name) for name, info in other.info.items() if info.added}, **given}
        linter = linter_for(found) if lint else None
        findings = _checked_texts(given, linter)
        _refuse(findings, strict=strict)
        info = _info(found.bank, given, other, background=background, threshold=threshold)
        places_of(found.bank, [*given])  # what is wrong with a name shows before minutes go into embedding
        rows = _embedded(found, given, linter, findings)
        _refuse(findings, strict=strict)
        _show(findings)
        after = edit(found.bank, [*given], rows, info, by="sar-bank add")
        if other is not None:
            after = amend(after, _known_of_others(after, other), by="sar-bank add --from")
        warn_of_background(after)
        write(place, found, after, findings=[asdict(finding) for finding in findings])


def _checked_texts(given: Phrases, linter: Linter | None) -> list[Finding]:
    """What is seen before minutes go into embedding."""
    from sar_infer.lint.linter import CHUNK, chunked

    if linter is None:
        return []
    chunks = counted(chunked(given), len(given), "Checking", CHUNK)
    return [finding for chunk in chunks for finding in linter.texts(chunk)]


def _embedded(found: Opened, given: Phrases, linter: Linter | None, findings: list[Finding]) -> Floats:
    """Unit rows (N, D), made a chunk at a time, each looked at by the linter, whose findings are appended."""
    import numpy as np

    from sar_infer.lint.linter import CHUNK, chunked

    rows, start = np.empty((len(given), found.bundle.manifest.embed_dim), dtype=np.float32), 0
    for chunk in counted(chunked(given), len(given), "Embedding", CHUNK):
        part = found.classifier.embed_phrases([*chunk.values()])
        rows[start : start + len(part)] = part
        start += len(part)
        if linter is not None:
            findings += linter.embeddings(chunk, part)
    return rows


def _refuse(findings: Sequence[Finding], *, strict: bool) -> None:
    """Stop where a name cannot be embedded, or with ``strict`` is doubtful.

    Raises:
        Refusal: nothing is added.
    """
    bad = [finding for finding in findings if finding.severity == "error" or (strict and finding.severity == "warning")]
    if bad:
        _show(bad)
        what = "--strict, and there are warnings" if strict else "not all of them can be embedded"
        raise Refusal(f"nothing was added: {what} ({len(bad):,} finding{'s' if len(bad) > 1 else ''})")


def _show(findings: Sequence[Finding]) -> None:
    for line in shown(findings, _MOST_SHOWN):
        click.echo(one_line(line), err=True)


def _known_of_others(bank: ClassBank, other: ClassBank) -> dict[str, ClassInfo]:
    """What the other bank knows of classes that came with its bundle; a warning where this one lacks them."""
    from sar_infer.bank.edits import listed

    known = {name: info for name, info in other.info.items() if not info.added}
    lacking = [name for name in known if bank.lookup.name(name) is None]
    if lacking:
        text = f"Warning: left out what --from knows of {listed(lacking)}: renamed there, or in its bundle alone"
        click.echo(one_line(text), err=True)
    return {name: info for name, info in known.items() if bank.lookup.name(name) is not None}


def _info(
    bank: ClassBank, given: Phrases, other: ClassBank | None, *, background: bool, threshold: float | None
) -> dict[str, ClassInfo]:
    """What the bank is told of each class; one that it, or the other bank, has keeps what is not said anew."""
    from sar_infer.bank import ClassInfo

    plain, result = ClassInfo(), {}
    for name, phrases in given.items():
        row = bank.lookup.name(name)
        was = plain if row is None else bank.info.get(bank.names[row], plain)
        was = was if other is None else other.info.get(name, was)
        result[name] = dataclasses.replace(
            was,
            phrases=() if phrases == (name,) else phrases,
            background=background or was.background,
            threshold=was.threshold if threshold is None else threshold,
        )
    return result
