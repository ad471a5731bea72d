"""WordNet's relatives of the training classes, at a chosen distance, and its common nouns at random."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from sar_train.errors import ConfigError
from sar_train.novel_names import wordnet
from sar_train.novel_names.source import NameRequest, NovelSource, kinds

LONGEST = 10
"""Longest path that may be asked for; synsets farther away are no relatives."""


@kinds.register("wordnet")
class WordNet(NovelSource):
    """``wordnet`` takes path lengths 2 to 4, ``wordnet:3`` just that one, ``wordnet:1-6`` all of a range."""

    form = "wordnet[:D|:A-B]"
    endless = True

    def check(self) -> None:
        """Raise ConfigError if the path lengths are neither a number nor a range."""
        self.nearest, self.farthest = wordnet.NEAREST, wordnet.FARTHEST
        if self.argument is None:
            return
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", self.argument)
        self.nearest, self.farthest = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= self.nearest <= self.farthest <= LONGEST:
            raise ConfigError(
                f"novel names: {self.name}: expected a path length from 1 to {LONGEST} or a range of them, such as "
                "wordnet:3 or wordnet:2-4 (2 is a sibling, 4 a cousin)"
            )

    def candidates(self, request: NameRequest) -> Iterable[str]:
        """Return near relatives first, of each class in turn."""
        rng = random.Random(request.seed)
        return wordnet.related_names(request.trained, wordnet.load(), rng, self.nearest, self.farthest)


@kinds.register("words")
class Words(NovelSource):
    """``words``: single lower-case nouns of WordNet."""

    form = "words"
    endless = True

    def candidates(self, request: NameRequest) -> Iterable[str]:
        """Return the nouns in an order that the seed decides."""
        return wordnet.random_words(wordnet.load(), random.Random(request.seed))
