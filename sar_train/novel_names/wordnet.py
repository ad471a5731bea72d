"""WordNet 3.0 as a source: relatives of the training classes at a chosen distance, and common nouns at random.

The nouns are a table that ships with the package, a TSV compressed by xz, one synset a line:
``offset<TAB>lemma[:rank],…<TAB>hypernym offset,…``. ``rank`` is the sense number of the lemma (1 where omitted; 1 is
the commonest sense). Instances (names of people and places) are left out. ``scripts/wordnet_table.py`` makes it from
Debian's ``wordnet-base``.
"""

from __future__ import annotations

import lzma
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import zip_longest
from pathlib import Path

from sar_train.errors import ConfigError
from sar_train.novel_names.source import NameRequest, NovelSource, kinds

TABLE = Path(__file__).parents[1] / "assets" / "wordnet_nouns.tsv.xz"
PHYSICAL_ENTITY = 1930
NEAREST, FARTHEST = 2, 4
"""Path lengths between a class and its relatives: 2 is a sibling or a hyponym's hyponym, 4 a cousin."""
LONGEST = 10
"""Longest path that may be asked for; synsets farther away are no relatives."""
WORD_LENGTHS = range(3, 13)
_PLURALS = (
    ("ves", "f"), ("ves", "fe"), ("men", "man"), ("mice", "mouse"), ("lice", "louse"), ("geese", "goose"),
    ("feet", "foot"), ("teeth", "tooth"), ("children", "child"), ("oxen", "ox"), ("cacti", "cactus"),
)  # fmt: skip
"""Endings of plurals and of their singulars, as in ``wolves``, ``knives`` and ``snowmen``."""


@dataclass(frozen=True, slots=True)
class Synset:
    """One meaning: ``lemmas`` are (name with spaces, sense rank) pairs, ``hypernyms`` the offsets one step up."""

    offset: int
    lemmas: tuple[tuple[str, int], ...]
    hypernyms: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return the first lemma, WordNet's own choice of a headword."""
        return self.lemmas[0][0]


@dataclass(frozen=True)
class Taxonomy:
    """The noun graph with the look-ups that the package needs."""

    synsets: dict[int, Synset]
    _up: dict[int, dict[int, int]] = field(default_factory=dict, repr=False)

    @cached_property
    def hyponyms(self) -> dict[int, list[int]]:
        """Return the offsets one step down, by offset."""
        down: dict[int, list[int]] = defaultdict(list)
        for synset in self.synsets.values():
            for parent in synset.hypernyms:
                down[parent].append(synset.offset)
        return dict(down)

    @cached_property
    def by_lemma(self) -> dict[str, list[int]]:
        """Return the offsets of every sense of a lower-cased lemma, commonest first."""
        ranked: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for synset in self.synsets.values():
            for lemma, rank in synset.lemmas:
                ranked[lemma.lower()].append((rank, synset.offset))
        return {lemma: [offset for _, offset in sorted(senses)] for lemma, senses in ranked.items()}

    def distances_up(self, offset: int) -> dict[int, int]:
        """Return every ancestor (the synset itself at 0) with the fewest steps up to it."""
        if offset not in self._up:
            reached, frontier, steps = {offset: 0}, [offset], 0
            while frontier:
                steps += 1
                frontier = [p for s in frontier for p in self.synsets[s].hypernyms if p not in reached]
                reached.update(dict.fromkeys(frontier, steps))
            self._up[offset] = reached
        return self._up[offset]

    def path_similarity(self, first: int, second: int) -> float:
        """Return 1 / (1 + length of the shortest path through a common ancestor), 0 without one."""
        up, other = self.distances_up(first), self.distances_up(second)
        shared = up.keys() & other.keys()
        return 1 / (1 + min(up[s] + other[s] for s in shared)) if shared else 0.0

    def is_physical(self, offset: int) -> bool:
        """Return True if the synset lies under *physical entity*."""
        return PHYSICAL_ENTITY in self.distances_up(offset)


@cache
def load() -> Taxonomy:
    """Read the shipped table (74,000 synsets, about a third of a second)."""
    synsets = {}
    with lzma.open(TABLE, "rt", encoding="utf-8") as lines:
        for line in lines:
            offset, lemmas, hypernyms = line.rstrip("\n").split("\t")
            pairs = (lemma.partition(":") for lemma in lemmas.split(","))
            synsets[int(offset)] = Synset(
                int(offset),
                tuple((name, int(rank or 1)) for name, _, rank in pairs),
                tuple(int(h) for h in hypernyms.split(",") if h),
            )
    return Taxonomy(synsets)


def match(name: str, taxonomy: Taxonomy, *, last_word: bool = True) -> int | None:
    """Return the synset that a class name means, or None.

    The whole name is looked up, then, with ``last_word``, its last word; each as written and as a plural. Of several
    senses the commonest physical one is taken, else the commonest.
    """
    words = name.replace("_", " ").lower().split()
    for text in (" ".join(words), *(words[-1:] if last_word else ())):
        for form in singulars(text):
            senses = taxonomy.by_lemma.get(form)
            if senses:
                return next((s for s in senses if taxonomy.is_physical(s)), senses[0])
    return None


def relatives(synset: int, taxonomy: Taxonomy, nearest: int, farthest: int) -> dict[int, int]:
    """Return the path lengths to synsets a number of steps away, not above it: hyponyms, siblings, cousins."""
    above = taxonomy.distances_up(synset)
    lengths: dict[int, int] = {}
    for ancestor, up in above.items():
        level = [ancestor]
        for down in range(1, farthest - up + 1):
            level = [child for parent in level for child in taxonomy.hyponyms.get(parent, [])]
            for other in level:
                if other not in above:
                    lengths[other] = min(up + down, lengths.get(other, up + down))
    return {other: length for other, length in lengths.items() if length >= nearest}


def related_names(
    class_names: Sequence[str], taxonomy: Taxonomy, rng: random.Random, nearest: int, farthest: int
) -> Iterator[str]:
    """Yield names of the classes' relatives ``nearest`` to ``farthest`` steps away, of each class in turn.

    Physical things come first, near ones before far ones, in random order otherwise. A synset is called by its
    headword, and passed over where that commonly means something else. Synsets of the classes are left out.
    """
    matched = [synset for synset in (match(name, taxonomy) for name in class_names) if synset is not None]
    queues = []
    for synset in dict.fromkeys(matched):
        lengths = relatives(synset, taxonomy, nearest, farthest)
        near = [(not taxonomy.is_physical(s), length, rng.random(), s) for s, length in lengths.items()]
        queues.append([s for *_, s in sorted(near)])
    named = set(matched)
    for turn in zip_longest(*queues):
        for synset in turn:
            if synset is not None and synset not in named:
                named.add(synset)
                name = taxonomy.synsets[synset].name
                if match(name, taxonomy, last_word=False) == synset:
                    yield name


def random_words(taxonomy: Taxonomy, rng: random.Random) -> Iterator[str]:
    """Return common nouns in random order: single lower-case words with two meanings or more, which rare words lack."""
    words = sorted(
        {
            lemma
            for synset in taxonomy.synsets.values()
            for lemma, _ in synset.lemmas
            if lemma.isalpha() and lemma.isascii() and lemma.islower() and len(lemma) in WORD_LENGTHS
        }
    )
    rng.shuffle(words)
    return (word for word in words if len(taxonomy.by_lemma[word]) > 1)


def singulars(text: str) -> Iterator[str]:
    """Yield a lower-case text as written, then with each ending of a plural replaced that it may have."""
    yield text
    for plural, singular in (("ies", "y"), ("es", ""), ("s", "")):
        if text.endswith(plural) and len(text) > len(plural) + 2:
            yield text.removesuffix(plural) + singular
    for plural, singular in _PLURALS:
        if text.endswith(plural):
            yield text.removesuffix(plural) + singular


@kinds.register("wordnet")
class WordNet(NovelSource):
    """``wordnet`` takes path lengths 2 to 4, ``wordnet:3`` just that one, ``wordnet:1-6`` all of a range."""

    form = "wordnet[:D|:A-B]"
    endless = True

    def check(self) -> None:
        """Raise ConfigError if the path lengths are neither a number nor a range."""
        self.nearest, self.farthest = NEAREST, FARTHEST
        if self.argument is None:
            return
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", self.argument)
        self.nearest, self.farthest = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= self.nearest <= self.farthest <= LONGEST:
            raise ConfigError(
                f"auxiliary names: {self.name}: expected a path length from 1 to {LONGEST} or a range of them, such as "
                "wordnet:3 or wordnet:2-4 (2 is a sibling, 4 a cousin)"
            )

    def candidates(self, request: NameRequest) -> Iterable[str]:
        """Return near relatives first, of each class in turn."""
        rng = random.Random(request.seed)
        return related_names(request.trained, load(), rng, self.nearest, self.farthest)


@kinds.register("words")
class Words(NovelSource):
    """``words``: single lower-case nouns of WordNet."""

    form = "words"
    endless = True

    def candidates(self, request: NameRequest) -> Iterable[str]:
        """Return the nouns in an order that the seed decides."""
        return random_words(load(), random.Random(request.seed))
