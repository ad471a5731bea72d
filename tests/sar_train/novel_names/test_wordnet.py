"""WordNet's nouns as novel names."""

from __future__ import annotations

import random

import pytest

from sar_train.errors import ConfigError
from sar_train.novel_names import wordnet
from sar_train.novel_names.source import NameRequest, open_novel_source
from sar_train.novel_names.wordnet import Taxonomy, match, related_names

DOG = 2084071


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return wordnet.load()


@pytest.mark.parametrize(
    ("name", "headword"),
    [
        ("Golden_Retriever", "golden retriever"),
        ("ceiling_fan", "fan"),
        ("Industrial Buildings", "building"),
        ("ferries", "ferry"),
        ("crane", "crane"),
    ],
)
def test_match(taxonomy: Taxonomy, name: str, headword: str) -> None:
    synset = match(name, taxonomy)
    assert synset is not None
    assert taxonomy.synsets[synset].name == headword
    assert taxonomy.is_physical(synset)


def test_relatives_of_a_golden_retriever_are_dogs(taxonomy: Taxonomy) -> None:
    names = list(related_names(["golden_retriever"], taxonomy, random.Random(1), 2, 4))
    assert {"Labrador retriever", "Irish setter", "cocker spaniel"} <= set(names)
    assert "golden retriever" not in names
    assert all(DOG in taxonomy.distances_up(match(name, taxonomy) or 0) for name in names)
    assert all(name.endswith(" retriever") for name in names[:3])


@pytest.mark.parametrize(("text", "lengths"), [("wordnet:1", {1}), ("wordnet:3", {3}), ("wordnet:5-6", {5, 6})])
def test_relatives_are_as_far_away_as_asked(taxonomy: Taxonomy, text: str, lengths: set[int]) -> None:
    synsets = [match(name, taxonomy) or 0 for name in ("retriever", "grand_piano")]
    names = list(open_novel_source(text).candidates(NameRequest(["retriever", "grand_piano"], 400)))
    assert names
    for name in names:
        relative = match(name, taxonomy, last_word=False) or 0
        distances = {round(1 / taxonomy.path_similarity(synset, relative)) - 1 for synset in synsets}
        assert distances & lengths


@pytest.mark.parametrize("text", ["wordnet:", "wordnet:0", "wordnet:4-2", "wordnet:11", "wordnet:a", "wordnet:2-4-6"])
def test_a_distance_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{text}: .*1 to 10"):
        open_novel_source(text)
