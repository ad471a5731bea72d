"""WordNet's nouns as novel names."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from sar_train.novel_names import wordnet
from sar_train.novel_names.wordnet import Taxonomy, match, random_words, related_names, relatives

DOG = 2084071
GOLDEN_RETRIEVER = 2099601


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return wordnet.load()


@pytest.mark.parametrize(
    ("name", "headword"),
    [
        ("golden_retriever", "golden retriever"),
        ("Golden Retriever", "golden retriever"),
        ("wild_cat", "cat"),
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


def test_no_match(taxonomy: Taxonomy) -> None:
    assert match("garfield", taxonomy) is None
    assert match("", taxonomy) is None
    assert match("wild_cat", taxonomy, last_word=False) is None


def test_relatives_are_two_to_four_steps_away(taxonomy: Taxonomy) -> None:
    found = relatives(GOLDEN_RETRIEVER, taxonomy)
    assert found
    for other, length in found.items():
        assert 2 <= length <= 4
        assert taxonomy.path_similarity(GOLDEN_RETRIEVER, other) == pytest.approx(1 / (1 + length))
        assert other not in taxonomy.distances_up(GOLDEN_RETRIEVER)


def test_relatives_of_a_golden_retriever_are_dogs(taxonomy: Taxonomy) -> None:
    names = list(related_names(["golden_retriever"], taxonomy, random.Random(1)))
    assert {"Labrador retriever", "Irish setter", "cocker spaniel"} <= set(names)
    assert "golden retriever" not in names
    assert all(DOG in taxonomy.distances_up(match(name, taxonomy) or 0) for name in names)
    assert set(names[:3]) <= {
        f"{kind} retriever" for kind in ("flat-coated", "curly-coated", "Chesapeake Bay", "Labrador")
    }


def test_classes_take_turns(taxonomy: Taxonomy) -> None:
    classes = ["golden_retriever", "grand_piano", "oak"]
    names = list(islice(related_names([*classes, "garfield"], taxonomy, random.Random(1)), 30))
    own = [match(name, taxonomy) for name in classes]
    nearest = [max(own, key=lambda s: taxonomy.path_similarity(s or 0, match(name, taxonomy) or 0)) for name in names]
    assert all(nearest.count(synset) >= 8 for synset in own)
    assert len(set(names)) == len(names)


def test_seeds(taxonomy: Taxonomy) -> None:
    first, again, other = (
        list(islice(related_names(["dog", "cup"], taxonomy, random.Random(seed)), 40)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_random_words(taxonomy: Taxonomy) -> None:
    words = list(random_words(taxonomy, random.Random(1)))
    assert len(words) == len(set(words)) > 5000
    assert all(word.islower() and word.isalpha() for word in words)
    assert {"dog", "table", "plant"} <= set(words)
    assert words == list(random_words(taxonomy, random.Random(1)))
    assert words[:20] != list(islice(random_words(taxonomy, random.Random(2)), 20))
