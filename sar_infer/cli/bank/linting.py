"""``sar-bank lint``, and how findings are shown."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sar_infer.cli.bank.common import Opened, Place, on_bank, opened, own_option, shared_options
from sar_infer.cli.bank.given import given_classes
from sar_infer.cli.bank.printing import emit
from sar_infer.cli.bank.progress import counted

if TYPE_CHECKING:
    from sar_infer.lint import Finding, Linter


@click.command()
@on_bank
@click.argument("names", nargs=-1)
@own_option("--classes", type=click.Path(path_type=Path), help="Text file with names to look at, one a line.")
@shared_options
def lint(place: Place, names: Sequence[str], classes: Path | None) -> None:
    """Look at names before BANK_FILE gets them, or at its own classes where none are given.

    Looks for names that are too long or odd to the encoder, that double a class or nearly do, and, in a bundle with a
    reference encoder (sar-export --with-reference), whose relations to other classes the learned prompt has moved.
    Exit code 0 if there is no warning, 1 if there is one.
    """
    from sar_infer.lint.linter import CHUNK, chunked

    found = opened(place, may_be_missing=True)
    within = not names and classes is None
    bank = found.bank
    given = {name: bank.phrases(name) for name in bank.names} if within else given_classes(names, classes)
    linter = linter_for(found, within=within)
    findings: list[Finding] = []
    for chunk in counted(chunked(given), len(given), "Checking", CHUNK):
        findings += linter.check(chunk, found.classifier.embed_phrases)
    findings += linter.skipped()
    emit(place.form, lambda: [asdict(finding) for finding in findings], shown(findings))
    sys.exit(1 if any(finding.severity in ("warning", "error") for finding in findings) else 0)


def linter_for(found: Opened, *, within: bool = False) -> Linter:
    """The linter of a bank, with hand-crafted embeddings where the bundle can make them."""
    from sar_infer.lint import Linter, reference_embedder

    return Linter(found.bundle, found.bank, reference_embedder(found.bundle), within=within)


def shown(findings: Sequence[Finding], most: int | None = None) -> Iterator[str]:
    """A line for each finding; with ``most``, for the worst of them, and a line that counts the rest."""
    from sar_infer.lint import worst_first

    if most is not None and len(findings) > most:
        findings = worst_first(findings)
    for finding in findings[:most]:
        name = f"{finding.name!r} " if finding.name else ""
        hint = "" if finding.suggestion is None else f" -> {finding.suggestion!r}"
        yield f"{finding.severity}: {name}{finding.message} [{finding.kind}]{hint}"
    rest = Counter(finding.severity for finding in findings[len(findings[:most]) :])
    if rest:
        yield f"and {', '.join(f'{count:,} more of severity {severity}' for severity, count in rest.items())}"
