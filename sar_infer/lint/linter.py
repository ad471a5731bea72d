"""All rules over any number of names, in chunks: memory does not grow with the names, but for one entry a name."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping

from sar_infer._arrays import Floats
from sar_infer.artefact.bundle import Bundle
from sar_infer.bank import ClassBank
from sar_infer.bank.search import at_even_steps
from sar_infer.lint.duplicates import KnownNames
from sar_infer.lint.finding import Finding
from sar_infer.lint.neighbours import Neighbours
from sar_infer.lint.reference import Embed
from sar_infer.lint.relations import LEAST_ANCHORS, MOST_ANCHORS, Relations
from sar_infer.lint.tokens import odd_tokens, unusable
from sar_infer.lint.wording import odd_characters, wording

Phrases = Mapping[str, tuple[str, ...]]

CHUNK = 2048
"""Names that are embedded and compared together."""


class Linter:
    """The rules for one bundle and one bank.

    Args:
        bundle: Whose name encoder embeds.
        bank: Whose classes new names are compared with.
        reference: Hand-crafted embeddings (``reference_embedder``); without them, relations are not looked at.
        within: The names to come are the bank's own, so that only one that doubles an earlier one is a duplicate.
    """

    def __init__(
        self, bundle: Bundle, bank: ClassBank, reference: Embed | None = None, *, within: bool = False
    ) -> None:
        self._bundle, self._bank, self._reference = bundle, bank, reference
        self._known = KnownNames(() if within else _spellings(bank))
        self._doubles: set[tuple[str, str | None]] = set()

    def texts(self, classes: Phrases) -> list[Finding]:
        """What is seen without embedding: characters, wording, tokens, duplicates; names in order."""
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
        """What is seen in the unit rows (N, D) of N classes: near-duplicates, and relations that moved."""
        near = self._neighbours.check([*classes], rows)
        findings = [finding for finding in near if (finding.name, finding.suggestion) not in self._doubles]
        if self._reference is None or self._relations is None:
            return findings
        fitting = {name: row for row, (name, phrases) in enumerate(classes.items()) if self._fits(phrases)}
        handcrafted = self._reference([classes[name] for name in fitting])
        return findings + self._relations.check([*fitting], rows[[*fitting.values()]], handcrafted)

    def check(self, classes: Phrases, embed: Embed) -> list[Finding]:
        """All of it; ``embed`` gives the learned embeddings of what can be embedded."""
        findings = self.texts(classes)
        refused = {finding.name for finding in findings if finding.severity == "error"}
        usable = {name: phrases for name, phrases in classes.items() if name not in refused}
        return findings + self.embeddings(usable, embed([*usable.values()]))

    def skipped(self) -> list[Finding]:
        """Which rules cannot run, and why."""
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
        return Relations([*anchors], bank.embeddings[[*anchors.values()]], handcrafted)

    def _fits(self, phrases: tuple[str, ...]) -> bool:
        """Whether there is room for all phrases behind the hand-crafted template too."""
        reference = self._bundle.manifest.reference
        assert reference is not None  # noqa: S101 - there are embeddings, so there is an encoder
        return not any(unusable("", phrase, self._bundle.tokenizer, reference.tokenizer) for phrase in phrases)


def lint(
    classes: Phrases, bundle: Bundle, bank: ClassBank, embed: Embed, reference: Embed | None = None
) -> Iterator[Finding]:
    """All findings of all rules, as they are found.

    Args:
        classes: Phrases by class name, the name itself where it stands for itself.
        bundle: Whose name encoder embeds.
        bank: Whose classes the names are compared with.
        embed: Learned embeddings (``Classifier.embed_phrases``).
        reference: Hand-crafted embeddings (``reference_embedder``).
    """
    linter = Linter(bundle, bank, reference)
    for chunk in chunked(classes):
        yield from linter.check(chunk, embed)
    yield from linter.skipped()


def chunked(classes: Phrases, size: int = CHUNK) -> Iterator[dict[str, tuple[str, ...]]]:
    """The classes, ``size`` at a time."""
    pairs = iter(classes.items())
    while chunk := dict(itertools.islice(pairs, size)):
        yield chunk


def _of_phrase(finding: Finding, text: str) -> Finding:
    """A finding that says which phrase of the class it is about, where that is not the name itself."""
    if text == finding.name:
        return finding
    return dataclasses.replace(finding, message=f"phrase {text!r:.80}: {finding.message}")


def _spellings(bank: ClassBank) -> Iterator[tuple[str, str]]:
    """Names and aliases of a bank, each with its class."""
    yield from ((name, name) for name in bank.names)
    yield from ((alias, name) for name, info in bank.info.items() for alias in info.aliases)
