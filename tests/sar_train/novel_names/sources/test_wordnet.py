"""WordNet's relatives and random nouns."""

from __future__ import annotations

import pytest

from sar_train.errors import ConfigError
from sar_train.novel_names import NameRequest, novel_names, open_novel_source, wordnet

CLASSES = ["golden_retriever", "grand_piano"]


@pytest.mark.parametrize(("text", "lengths"), [("wordnet:1", {1}), ("wordnet:3", {3}), ("wordnet:5-6", {5, 6})])
def test_relatives_are_as_far_away_as_asked(text: str, lengths: set[int]) -> None:
    taxonomy = wordnet.load()
    own = [wordnet.match(name, taxonomy) or 0 for name in CLASSES]
    names = list(open_novel_source(text).candidates(NameRequest(CLASSES, 400)))
    assert names or text == "wordnet:1"
    for name in names:
        found = wordnet.match(name, taxonomy, last_word=False) or 0
        distances = {round(1 / taxonomy.path_similarity(synset, found)) - 1 for synset in own}
        assert distances & lengths


def test_the_plain_word_is_two_to_four() -> None:
    assert novel_names("wordnet:2-4", CLASSES, count=50).names == novel_names("wordnet", CLASSES, count=50).names
    assert set(novel_names("wordnet:2", ["dog"]).names) <= set(novel_names("wordnet", ["dog"], count=5000).names)


def test_children_are_one_step_away() -> None:
    assert "Labrador retriever" in novel_names("wordnet:1", ["retriever"]).names


@pytest.mark.parametrize("text", ["wordnet:", "wordnet:0", "wordnet:4-2", "wordnet:11", "wordnet:a", "wordnet:2-4-6"])
def test_what_is_no_distance(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{text}: .*1 to 10"):
        open_novel_source(text)


def test_words_repeat_with_the_seed_alone() -> None:
    first = novel_names("words", ["dog"], count=30)
    assert first == novel_names("words", ["grand piano"], count=30)
    assert first.names != novel_names("words", ["dog"], count=30, seed=2).names
    assert len(first.names) == 30
