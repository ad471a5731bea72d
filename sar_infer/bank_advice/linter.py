"""All rules over any number of names, in chunks, so that memory grows only by one entry a name."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.bank.rebase import Embed
from sar_infer.bank.search import at_even_steps
from sar_infer.bank_advice.finding import Finding
from sar_infer.bank_advice.row_rules import LEAST_ANCHORS, MOST_ANCHORS, Neighbours, Relations
from sar_infer.bank_advice.text_rules import KnownNames, odd_characters, odd_tokens, unusable, wording
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import REFERENCE_ENCODER
from sar_infer.encoders.encoders import NameEncoder, unit_rows
from sar_infer.text.names import Phrases
from sar_infer.text.tokenizer import encode_name

CHUNK = 2048
"""Number of names that are embedded and compared together."""


class Linter:
    """The rules for one bundle and one bank.

    Args:
        bundle: The bundle whose name encoder embeds; its reference encoder, if it has one, tells what has moved.
        bank: The bank whose classes new names are compared with.
        within: The names to check are the bank's own, so that a duplicate is one that doubles an earlier name.
    """

    def __init__(self, bundle: Bundle, bank: ClassBank, *, within: bool = False) -> None:
        self._bundle, self._bank, self._reference = bundle, bank, reference_embedder(bundle)
        self._known = KnownNames(() if within else _spellings(bank))
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
                rules = (odd_characters(name, text), wording(name, text), odd_tokens(name, text, tokenizer))
                findings += [_of_phrase(finding, text) for finding in itertools.chain(*rules)]
            if double := self._known.check(name):
                findings.append(double)
                self._doubles.add((name, double.suggestion))
            self._known.add(name, name)
        return findings

    def embeddings(self, classes: Phrases, rows: Floats) -> list[Finding]:
        """Return the findings in the unit rows (N, D) of N classes: near-duplicates, and relations that moved."""
        findings = self.near(classes, rows)
        if self._reference is None or self._relations is None:
            return findings
        fitting = {name: row for row, (name, phrases) in enumerate(classes.items()) if self._fits(phrases)}
        handcrafted = self._reference([classes[name] for name in fitting])
        return findings + self._relations.check([*fitting], rows[[*fitting.values()]], handcrafted)

    def near(self, classes: Phrases, rows: Floats) -> list[Finding]:
        """Return near-duplicates by the unit rows (N, D) of N classes, but for those that ``texts`` has found."""
        near = self._neighbours.check([*classes], rows)
        return [finding for finding in near if (finding.name, finding.suggestion) not in self._doubles]

    def check(self, classes: Phrases, embed: Embed) -> list[Finding]:
        """Return all findings; ``embed`` gives the learned embeddings of the names that can be embedded."""
        findings = self.texts(classes)
        refused = {finding.name for finding in findings if finding.severity == "error"}
        usable = {name: phrases for name, phrases in classes.items() if name not in refused}
        return findings + self.embeddings(usable, embed([*usable.values()]))

    def skipped(self) -> list[Finding]:
        """Return a finding for each rule that cannot run, with the reason."""
        if self._bundle.manifest.method == "handcrafted":
            why = "the bundle's prompt is the hand-crafted one"
        elif self._reference is None:
            why = "the bundle has no reference encoder; sar-export --with-reference adds it"
        elif self._relations is None:
            why = f"the bank has {len(self._bank.names)} classes, {LEAST_ANCHORS} are needed"
        else:
            return []
        return [Finding("skipped", "info", "", f"learned and hand-crafted relations were not compared: {why}")]

    @functools.cached_property
    def _neighbours(self) -> Neighbours:
        return Neighbours(self._bank)

    @functools.cached_property
    def _relations(self) -> Relations | None:
        bank = self._bank
        if self._reference is None or len(bank.names) < LEAST_ANCHORS:
            return None
        places = at_even_steps(len(bank.names), MOST_ANCHORS)
        phrases = {name: bank.phrases(name) for name in (bank.names[place] for place in places)}
        anchors = {
            name: int(place) for (name, texts), place in zip(phrases.items(), places, strict=True) if self._fits(texts)
        }
        handcrafted = self._reference([phrases[name] for name in anchors])
        return Relations([*anchors], bank.rows_at([*anchors.values()]), handcrafted)

    def _fits(self, phrases: tuple[str, ...]) -> bool:
        """Return True if all phrases fit after the hand-crafted template too."""
        reference = self._bundle.manifest.reference
        assert reference is not None  # noqa: S101 - there are embeddings, so there is an encoder
        return not any(unusable("", phrase, self._bundle.tokenizer, reference.tokenizer) for phrase in phrases)


def reference_embedder(bundle: Bundle) -> Embed | None:
    """Return the hand-crafted counterpart of ``Classifier.embed_phrases``; None if the bundle has no reference encoder.

    The function raises ClassNameError for a phrase that does not fit after the template.
    """
    reference = bundle.manifest.reference
    if reference is None:
        return None
    spec = reference.tokenizer
    encoder = NameEncoder(bundle.path / REFERENCE_ENCODER, bundle.manifest.embed_dim, spec.end_token, "auto")

    def embed(groups: Sequence[tuple[str, ...]]) -> Floats:
        tokens = [encode_name(bundle.tokenizer, spec, phrase) for group in groups for phrase in group]
        rows = encoder.encode(tokens)
        starts = np.cumsum([0, *map(len, groups)])[:-1]
        return unit_rows(np.add.reduceat(rows, starts, axis=0)) if len(groups) else rows

    return embed


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
    yield from ((alias, name) for name, info in bank.info.items() for alias in info.aliases)
