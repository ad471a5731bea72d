"""Nouns of WordNet as novel names: relatives of given class names, and words drawn at random."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from sar_train.novel_names.wordnet import Taxonomy

NEAREST, FARTHEST = 2, 4
"""Path lengths between a class and its relatives: 2 is a sibling or a hyponym's hyponym, 4 a cousin."""
WORD_LENGTHS = range(3, 13)


def match(name: str, taxonomy: Taxonomy, *, last_word: bool = True) -> int | None:
    """The synset that a class name means, or None.

    The whole name is looked up, then, with ``last_word``, its last word; each as it stands and as a plural. Of several
    senses the commonest physical one is taken, else the commonest.
    """
    words = name.replace("_", " ").lower().split()
    for text in (" ".join(words), *(words[-1:] if last_word else ())):
        for form in _singulars(text):
            senses = taxonomy.by_lemma.get(form)
            if senses:
                return next((s for s in senses if taxonomy.is_physical(s)), senses[0])
    return None


def relatives(synset: int, taxonomy: Taxonomy, nearest: int = NEAREST, farthest: int = FARTHEST) -> dict[int, int]:
    """Path length of every synset so many steps away that is not above the given one: hyponyms, siblings, cousins."""
    above = taxonomy.distances_up(synset)
    found: dict[int, int] = {}
    for ancestor, up in above.items():
        level = [ancestor]
        for down in range(1, farthest - up + 1):
            level = [child for parent in level for child in taxonomy.hyponyms.get(parent, [])]
            for other in level:
                if other not in above:
                    found[other] = min(up + down, found.get(other, up + down))
    return {other: length for other, length in found.items() if length >= nearest}


def related_names(
    class_names: Sequence[str],
    taxonomy: Taxonomy,
    rng: random.Random,
    nearest: int = NEAREST,
    farthest: int = FARTHEST,
) -> Iterator[str]:
    """Names of the classes' relatives ``nearest`` to ``farthest`` steps away, one class after the other in turn.

    Physical things come first, near ones before far ones, in random order otherwise. A synset is called by its
    headword, and passed over where that commonly means something else. Synsets of the classes are left out.
    """
    own = [synset for synset in (match(name, taxonomy) for name in class_names) if synset is not None]
    queues = []
    for synset in dict.fromkeys(own):
        found = relatives(synset, taxonomy, nearest, farthest)
        near = [(not taxonomy.is_physical(s), length, rng.random(), s) for s, length in found.items()]
        queues.append([s for *_, s in sorted(near)])
    given = set(own)
    for turn in zip_longest(*queues):
        for synset in turn:
            if synset is not None and synset not in given:
                given.add(synset)
                name = taxonomy.synsets[synset].name
                if match(name, taxonomy, last_word=False) == synset:
                    yield name


def random_words(taxonomy: Taxonomy, rng: random.Random) -> Iterator[str]:
    """Common nouns in random order: single lower-case words with at least two meanings, which rare words lack."""
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


def _singulars(text: str) -> Iterator[str]:
    yield text
    for plural, singular in (("ies", "y"), ("es", ""), ("s", "")):
        if text.endswith(plural) and len(text) > len(plural) + 2:
            yield text.removesuffix(plural) + singular
