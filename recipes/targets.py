"""Target embeddings of nouns: the teacher of `sar-mini`'s text tower, made of class rows and WordNet alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor
from torch.nn.functional import normalize

from sar_train.novel_names import wordnet

IMAGENET_WNIDS = Path(__file__).parent / "imagenet_wnids.txt"


@dataclass(frozen=True)
class Targets:
    """Names and their target rows.

    Attributes:
        names: ``names[i]`` are the spellings of ``rows[i]``.
        rows: (N, D) unit vectors.
        weights: (N,) how often each is drawn, relative to one another.
    """

    names: list[list[str]]
    rows: Tensor
    weights: list[float]


@dataclass(frozen=True)
class Curriculum:
    """Three groups to sample from, and nouns that the training never sees (design, section 6)."""

    imagenet: Targets
    above: Targets
    others: Targets
    held_out: Targets
    held_out_synsets: list[int]


def imagenet_synsets() -> list[int]:
    """Return the WordNet offsets of ImageNet's 1,000 classes, in class order."""
    return [int(line[1:]) for line in IMAGENET_WNIDS.read_text().split()]


def build(class_rows: Tensor, *, held_out: int, seed: int) -> Curriculum:
    """Give every physical noun a target row.

    An ImageNet class has its own row; a noun above several classes the mean of theirs; any other physical noun a
    mixture of its ancestors' rows, halved per step up. Other nouns that hang under the same taught ancestor share one
    target, or nearly; they are drawn with weight 1 / sqrt(their number), so that thousands of kinds of persons, for
    which ImageNet has three classes, do not crowd out the rest.

    Args:
        class_rows: (1000, D) unit rows in ImageNet's class order.
        held_out: how many other nouns to keep from the training.
        seed: chooses the held-out nouns.
    """
    taxonomy = wordnet.load()
    classes = imagenet_synsets()
    row_of = {synset: class_rows[i] for i, synset in enumerate(classes)}
    below: dict[int, list[Tensor]] = {}
    for i, synset in enumerate(classes):
        for ancestor in taxonomy.distances_up(synset):
            below.setdefault(ancestor, []).append(class_rows[i])
    above = [s for s, rows in below.items() if s not in row_of and len(rows) > 1 and taxonomy.is_physical(s)]
    row_of |= {s: normalize(torch.stack(below[s]).mean(0), dim=0) for s in above}
    others = [s for s in taxonomy.synsets if s not in row_of and taxonomy.is_physical(s)]
    hidden = set(random.Random(seed).sample(others, held_out))
    first_sense = {
        lemma: next((s for s in senses if taxonomy.is_physical(s)), None) for lemma, senses in taxonomy.by_lemma.items()
    }
    names_of_classes = {name.lower() for group in _class_names(classes) for name in group}
    hidden_names = {lemma.lower() for s in hidden for lemma, _ in taxonomy.synsets[s].lemmas} - names_of_classes

    def spellings(synset: int) -> list[str]:
        lemmas = [lemma for lemma, _ in taxonomy.synsets[synset].lemmas]
        return [n for n in lemmas if first_sense[n.lower()] == synset and n.lower() not in names_of_classes]

    def targets(synsets: list[int], keep: set[str] | None = None) -> Targets:
        named = [(s, [n for n in spellings(s) if (n.lower() in hidden_names) == (keep is not None)]) for s in synsets]
        named = [(s, names) for s, names in named if names]
        nearest = [_nearest_taught(s, row_of) for s, _ in named]
        crowd = Counter(nearest)
        return Targets(
            [names for _, names in named],
            torch.stack([_mixture(s, row_of) for s, _ in named]),
            [crowd[parent] ** -0.5 for parent in nearest],
        )

    taught = [s for s in others if s not in hidden]
    tested = [s for s in sorted(hidden) if any(n.lower() in hidden_names for n in spellings(s))]
    return Curriculum(
        Targets(_class_names(classes), class_rows, [1.0] * len(classes)),
        targets(above),
        targets(taught),
        targets(tested, hidden_names),
        tested,
    )


def _nearest_taught(synset: int, row_of: dict[int, Tensor]) -> int:
    steps = wordnet.load().distances_up(synset)
    return min((n, ancestor) for ancestor, n in steps.items() if ancestor in row_of)[1]


def _mixture(synset: int, row_of: dict[int, Tensor]) -> Tensor:
    steps = wordnet.load().distances_up(synset)
    if synset in row_of:
        return row_of[synset]
    parts = [row_of[ancestor] * 0.5**n for ancestor, n in sorted(steps.items()) if ancestor in row_of]
    return normalize(torch.stack(parts).sum(0), dim=0)


def _class_names(classes: list[int]) -> list[list[str]]:
    lemmas = [[lemma for lemma, _ in wordnet.load().synsets[s].lemmas] for s in classes]
    used = Counter(name.lower() for names in lemmas for name in names)
    unique = [[n for n in names if used[n.lower()] == 1] for names in lemmas]
    # open_clip's name counts double: it is what people evaluate with.
    return [
        [class_name, class_name, *(n for n in names if n.lower() != class_name.lower())]
        for class_name, names in zip(IMAGENET_CLASSNAMES, unique, strict=True)
    ]
