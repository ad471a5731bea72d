"""WordNet's relatives of the training classes, at a chosen distance."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from sar_train.errors import ConfigError
from sar_train.novel_names import wordnet
from sar_train.novel_names.source import NovelSource, Wanted, kinds

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
        found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", self.argument)
        self.nearest, self.farthest = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= self.nearest <= self.farthest <= LONGEST:
            raise ConfigError(
                f"novel names: {self.name}: expected a path length from 1 to {LONGEST} or a range of them, such as "
                "wordnet:3 or wordnet:2-4 (2 is a sibling, 4 a cousin)"
            )

    def candidates(self, wanted: Wanted) -> Iterable[str]:
        """Return near relatives first, of each class in turn."""
        rng = random.Random(wanted.seed)
        return wordnet.related_names(wanted.trained, wordnet.load(), rng, self.nearest, self.farthest)
