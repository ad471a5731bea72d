"""Four findings: a duplicate name, a name above the tokenizer's length, a photo in the wrong class, a confused pair."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import Bundle
from sar_infer.text import TokenizerSpec
from sar_infer.text.names import Phrases, name_key
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer, clean

Kind = Literal["duplicate", "too-long", "wrong-class", "confused"]
LEAST_PHOTOS = 4
"""Photos of a class below which nothing is reported about any of them."""
NEARER = 1.4
"""How many times as far, in squared distance, a photo must lie from the other photos of its class as from those of
another class: 1 % of garments and textures in the right folder do, and 7 of 10 in a wrong one."""
CONFUSED = 0.25
"""Share of the photos of a class that lie nearer to another class from which the pair is reported."""
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


def spelling(name: str) -> str:
    """Return what spellings of a name share that differ in case, spaces, hyphens and accents."""
    bare = name.casefold()
    if not name.isascii():
        bare = "".join(c for c in unicodedata.normalize("NFKD", bare) if not unicodedata.combining(c))
    return _NOT_SPOKEN.sub("", bare) or name


def duplicates(names: Iterable[str], known: Mapping[str, str]) -> list[Finding]:
    """Return a finding for each name that is spelled almost like a known one or one before it.

    A name that differs in case and spaces alone is the same class, so there is nothing to report.

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


def photo_findings(
    names: Sequence[str], means: Floats, counts: Indices, rows: Floats, owners: Indices, labels: Sequence[str]
) -> list[Finding]:
    """Return findings about photos by their embeddings: confused pairs of classes, and photos in the wrong class.

    A photo is compared with the mean of the other photos of its class, and with the mean of the photos of each other
    class; a mean of few photos is further from all.

    Args:
        names: K classes with photos.
        means: (K, D) the mean embedding of the photos of each.
        counts: (K,) how many photos each has.
        rows: (N, D) embeddings of the photos to look at.
        owners: (N,) position of each photo's class.
        labels: (N,) a name for each photo.
    """
    enough = np.flatnonzero(counts[owners] >= LEAST_PHOTOS)
    if len(names) < 2 or not len(enough):
        return []
    rows, owners, labels = rows[enough], owners[enough], [labels[number] for number in enough.tolist()]
    products = (means**2).sum(1) - 2 * rows @ means.T + (rows**2).sum(1)[:, np.newaxis]
    squares = np.maximum(products, 0).astype(np.float64) / (1 + 1 / counts)
    of_each, many = np.arange(len(rows)), counts[owners]
    own = squares[of_each, owners] * (1 + 1 / many) * (many / (many - 1)) ** 2 / (1 + 1 / (many - 1))
    squares[of_each, owners] = np.inf
    nearest = squares.argmin(1)
    ratios = own / np.maximum(squares[of_each, nearest], 1e-12)
    pairs = Counter(zip(owners[ratios > 1].tolist(), nearest[ratios > 1].tolist(), strict=True))
    looked_at = Counter(owners.tolist())
    findings, confused = [], set[tuple[int, int]]()
    for (owner, other), count in pairs.most_common():
        if count >= max(2, CONFUSED * looked_at[owner]) and (owner, other) not in confused:
            confused |= {(owner, other), (other, owner)}
            message = (
                f"{count} of {looked_at[owner]} photos lie nearer to the photos of {names[other]!r}; add photos that "
                "show the difference"
            )
            findings.append(Finding("confused", names[owner], message, names[other]))
    for number in np.argsort(-ratios):
        owner, other = int(owners[number]), int(nearest[number])
        if ratios[number] >= NEARER and (owner, other) not in confused:
            message = f"photo {labels[number]!r:.200} looks like {names[other]!r}; check its class"
            findings.append(Finding("wrong-class", names[owner], message, names[other]))
    return findings


def name_findings(bank: ClassBank, bundle: Bundle, classes: Phrases) -> list[Finding]:
    """Return findings about the names and phrases of new classes of a bank."""
    known = {alias: entry.name for entry in bank.special.values() for alias in entry.aliases}
    known |= {name: name for name in bank.names}
    new = [name for name in classes if bank.lookup.get(name) is None]
    spec = bundle.manifest.tokenizer
    return duplicates(new, known) + (too_long(classes, bundle.tokenizer, spec) if spec else [])


def new_photo_findings(bank: ClassBank, bundle: Bundle, before: ClassBank, files: Mapping[bytes, str]) -> list[Finding]:
    """Return findings about the photos that a bank has and an earlier one has not.

    Args:
        bank: The bank with its photos.
        bundle: Its bundle, whose training photos count too.
        before: The bank as it was.
        files: The file of each photo by its digest.
    """
    totals = {name: (len(photos), photos.total.astype(np.float64)) for name, photos in bank.photos.items()}
    if (trained := bundle.trained) is not None:
        for name, mean, count in zip(trained.names, trained.means, trained.counts.tolist(), strict=True):
            if bank.lookup.name(name) is not None:
                number, total = totals.get(name, (0, np.zeros(bank.dim)))
                totals[name] = number + count, total + mean.astype(np.float64) * count
    names = [name for name, (count, _) in totals.items() if count]
    positions = {name: position for position, name in enumerate(names)}
    rows, owners, labels = [np.empty((0, bank.dim), np.float32)], [], []
    for name, photos in bank.photos.items():
        was = before.photos.get(name)
        counted = frozenset() if was is None else was.digest_set
        digests = [*photos.recent]
        fresh = [number for number, digest in enumerate(digests) if digest not in counted]
        rows.append(photos.rows[fresh])
        owners += [positions[name]] * len(fresh) if fresh else []
        labels += [files.get(digests[number], f"{number + 1} of {len(digests)}") for number in fresh]
    means = np.array([totals[name][1] / totals[name][0] for name in names], np.float32).reshape(-1, bank.dim)
    counts = np.array([totals[name][0] for name in names], np.intp)
    return photo_findings(names, means, counts, np.concatenate(rows), np.array(owners, np.intp), labels)
