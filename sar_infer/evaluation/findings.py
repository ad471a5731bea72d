"""Findings: a near name, a name that is too long, a photo in a wrong class, a confused pair, photos that move."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.bank.edits import moves
from sar_infer.bundle.bundle import Bundle
from sar_infer.text import TokenizerSpec
from sar_infer.text.names import Phrases, name_key
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer, clean

Kind = Literal["duplicate", "too-long", "wrong-class", "confused", "moved"]
_NOT_SPOKEN = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Finding:
    """A remark on a class.

    Attributes:
        kind: What was found.
        name: The class.
        message: One sentence.
        suggestion: The other class, or of a name that is too long the words that fit.
    """

    kind: Kind
    name: str
    message: str
    suggestion: str | None = None


class FindingWarning(UserWarning):
    """A finding on a class that Python adds; ``finding`` has it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.name!r} {finding.message}")
        self.finding = finding


def spelling(name: str) -> str:
    """Return what spellings of a name share that differ in case, spaces, hyphens and accents."""
    bare = name.casefold()
    if not name.isascii():
        bare = "".join(c for c in unicodedata.normalize("NFKD", bare) if not unicodedata.combining(c))
    return _NOT_SPOKEN.sub("", bare) or name


def duplicates(names: Iterable[str], known: Mapping[str, str]) -> list[Finding]:
    """Return a finding for each name that is spelled almost like a known one or one before it.

    A name that differs only in case and spaces is the same class, so there is nothing to report.

    Args:
        names: New names.
        known: The class of each name and alias that a bank has.
    """
    owners = {spelling(name): owner for name, owner in known.items()}
    findings = []
    for name in names:
        owner = owners.setdefault(spelling(name), name)
        if name_key(owner) != name_key(name):
            message = f"is spelled almost like the class {owner!r}; use that name if both mean the same"
            findings.append(Finding("duplicate", name, message, owner))
    return findings


def too_long(classes: Phrases, tokenizer: Tokenizer | JsonTokenizer, spec: TokenizerSpec) -> list[Finding]:
    """Return a finding for each name or phrase with more tokens than the name encoder takes."""
    findings = []
    most = spec.max_name_tokens - len(tokenizer.encode(spec.prefix)) - len(tokenizer.encode(spec.suffix))
    for name, phrases in classes.items():
        for text in phrases:
            words = clean(text.replace("_", " "), spec.clean).split()
            lengths = np.cumsum([len(tokenizer.encode(word)) for word in words])
            fitting = int((lengths <= most).sum())
            if fitting < len(words):
                lost = " ".join(words[fitting:])
                phrase = "" if text == name else f"phrase {text!r:.80}: "
                message = f"{phrase}has more than {spec.max_name_tokens} tokens; {lost[:60]!r} would be lost"
                findings.append(Finding("too-long", name, message, " ".join(words[:fitting]) or None))
    return findings


def name_findings(bank: ClassBank, bundle: Bundle, classes: Phrases) -> list[Finding]:
    """Return findings about the names and phrases of new classes of a bank."""
    known = {alias: entry.name for entry in bank.special.values() for alias in entry.aliases}
    known |= {name: name for name in bank.names}
    new = [name for name in classes if bank.lookup.get(name) is None]
    spec = bundle.manifest.tokenizer
    return duplicates(new, known) + (too_long(classes, bundle.tokenizer, spec) if spec else [])


def moved_photos(bank: ClassBank, photos: Mapping[str, PhotoSet]) -> list[Finding]:
    """Return a finding for each class that gets photos from another one."""
    pairs = Counter((one.new, one.old) for one in moves(bank, photos))
    return [Finding("moved", new, f"gets {count} of the photos of {old!r}", old) for (new, old), count in pairs.items()]
