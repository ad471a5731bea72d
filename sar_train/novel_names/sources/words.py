"""Common English nouns at random."""

from __future__ import annotations

import random
from collections.abc import Iterable

from sar_train.novel_names import wordnet
from sar_train.novel_names.source import NovelSource, Wanted, kinds


@kinds.register("words")
class Words(NovelSource):
    """``words``: single lower-case nouns of WordNet."""

    form = "words"
    endless = True

    def candidates(self, wanted: Wanted) -> Iterable[str]:
        """Return the nouns in an order that the seed decides."""
        return wordnet.random_words(wordnet.load(), random.Random(wanted.seed))
