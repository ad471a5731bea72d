"""All rules over any number of names, in chunks, so that memory grows only by one entry a name."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.bank.edits import Embed
from sar_infer.bank_advice.finding import Finding
from sar_infer.bank_advice.row_rules import Neighbours
from sar_infer.bank_advice.text_rules import KnownNames, text_findings, unusable
from sar_infer.bundle.bundle import Bundle
from sar_infer.text.names import Phrases

CHUNK = 2048
"""Number of names that are embedded and compared together."""


class Linter:
    """The rules for one bundle and one bank.

    Args:
        bundle: The bundle whose name encoder embeds.
        bank: The bank whose classes new names are compared with.
        within: The names to check are the bank's own, so that a duplicate is one that doubles an earlier name.
    """

    def __init__(self, bundle: Bundle, bank: ClassBank, *, within: bool = False) -> None:
        self._bundle, self._bank = bundle, bank
        self._known_names = KnownNames(() if within else _spellings(bank))
        self._doubles: set[tuple[str, str | None]] = set()

    def texts(self, classes: Phrases) -> list[Finding]:
        """Return the findings that need no embedding: characters, wording, tokens, duplicates; names in order."""
        tokenizer, spec = self._bundle.tokenizer, self._bundle.manifest.tokenizer
        findings: list[Finding] = []
        for name, phrases in classes.items():
            refused = [
                _of_phrase(finding, text) for text in phrases if (finding := unusable(name, text, tokenizer, spec))
            ]
            findings += refused
            if refused:
                continue
            for text in phrases:
                findings += [_of_phrase(finding, text) for finding in text_findings(name, text, tokenizer)]
            if double := self._known_names.check(name):
                findings.append(double)
                self._doubles.add((name, double.suggestion))
            self._known_names.add(name, name)
        return findings

    def near(self, classes: Phrases, rows: Floats) -> list[Finding]:
        """Return near-duplicates by the unit rows (N, D) of N classes, but for those that ``texts`` has found."""
        near = self._neighbours.check([*classes], rows)
        return [finding for finding in near if (finding.name, finding.suggestion) not in self._doubles]

    def check(self, classes: Phrases, embed: Embed) -> list[Finding]:
        """Return all findings; ``embed`` gives the learned embeddings of the names that can be embedded."""
        findings = self.texts(classes)
        refused = {finding.name for finding in findings if finding.severity == "error"}
        usable = {name: phrases for name, phrases in classes.items() if name not in refused}
        return findings + self.near(usable, embed([*usable.values()]))

    @functools.cached_property
    def _neighbours(self) -> Neighbours:
        return Neighbours(self._bank)


def chunked(classes: Phrases) -> Iterator[dict[str, tuple[str, ...]]]:
    """Yield the classes, ``CHUNK`` at a time."""
    pairs = iter(classes.items())
    while chunk := dict(itertools.islice(pairs, CHUNK)):
        yield chunk


def _of_phrase(finding: Finding, text: str) -> Finding:
    """Return the finding with the phrase of the class that it is about, unless that is the name itself."""
    if text == finding.name:
        return finding
    return dataclasses.replace(finding, message=f"phrase {text!r:.80}: {finding.message}")


def _spellings(bank: ClassBank) -> Iterator[tuple[str, str]]:
    """Yield names and aliases of a bank, each with its class."""
    yield from ((name, name) for name in bank.names)
    yield from ((alias, entry.name) for entry in bank.special.values() for alias in entry.aliases)
