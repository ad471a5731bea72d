"""From candidates to names: cleaned, counted, judged; and what sources gave before stays as it was."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import torch
from support.tiny import tiny_backbone

from sar_train.clip.prompts import Prompts
from sar_train.errors import ConfigError
from sar_train.novel_names.gather import COUNT, novel_names
from sar_train.novel_names.source import kinds, open_novel_source


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "names.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("source", "seed", "names"),
    [
        (
            "wordnet",
            1,
            "flat-coated retriever, mechanical piano, sawdust, elevator, Chesapeake Bay retriever, birch, hoist, spoon",
        ),
        (
            "wordnet",
            2,
            "Labrador retriever, sapwood, elevator, magnetic bottle, Chesapeake Bay retriever, mechanical piano, "
            "Panama redwood, winch",
        ),
        ("words", 1, "flirt, click, oasis, bonito, incurvation, torpedo, censorship, guess"),
        ("words", 2, "sympathiser, focalisation, midweek, hatchback, nephrosis, shop, millionth, emission"),
    ],
)
def test_committed_results_depend_on_these_names(source: str, seed: int, names: str) -> None:
    classes = ["golden_retriever", "grand_piano", "oak", "crane", "cup"]
    assert ", ".join(novel_names(source, classes, count=8, seed=seed).names) == names


def test_names_are_cleaned_counted_and_left_out(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeff# animals\n\nred_fox\n  Red  Fox \nDOG\nwolf\ncat\nRed-fox\naeroplane\n")
    novel = novel_names(file, ["dog"], new=["Cat", "dog", "airplane", "garfield"])
    assert (novel.names, novel.source, novel.overlap, novel.warnings) == (("red fox", "wolf"), file, 2, ())
    assert novel.summary == {"source": file, "count": 2, "overlap": 2}
    whole = novel_names(file, ["dog"], new=["CAT"], exclude=False)
    assert (whole.names, whole.overlap) == (("red fox", "wolf", "cat", "aeroplane"), 1)


@pytest.mark.parametrize(
    ("new", "name"),
    [
        ("crab", "crabs"),
        ("leopard", "Leopards"),
        ("crabs", "Crab"),
        ("cupcake", "cup cakes"),
        ("gizmobox", "Gizmo-Boxes"),
        ("gizmo knives", "Gizmo knife"),
        ("arctic wolf", "Arctic Wolves"),
        ("gizmomice", "gizmo mouse"),
        ("gizmoman", "gizmomen"),
    ],
)
def test_another_spelling_or_number_of_a_new_name_counts_as_new(tmp_path: Path, new: str, name: str) -> None:
    novel = novel_names(write(tmp_path, f"{name}\nfox\n"), ["dog"], new=[new])
    assert (novel.names, novel.overlap) == (("fox",), 1)


def test_names_are_the_same_however_their_accents_are_stored(tmp_path: Path) -> None:
    """File systems take accents apart, and lists have them in one piece."""
    apart, whole = (unicodedata.normalize(form, "crème brûlée") for form in ("NFD", "NFC"))
    for trained, name in ((apart, whole), (whole, apart)):
        assert novel_names(write(tmp_path, f"{name}\nfox\n"), [trained]).names == ("fox",)
        assert novel_names(write(tmp_path, f"{name}\nfox\n"), ["dog"], new=[trained]).overlap == 1


def test_count_and_too_long_names(tmp_path: Path) -> None:
    long = " ".join(["word"] * 80)
    file = write(tmp_path, f"a cat\n{long}\nfox\nwolf\n")
    tower = tiny_backbone().text
    plain, crowded = (Prompts(torch.zeros(count, tower.width)) for count in (16, 73))
    novel = novel_names(file, ["dog"], room=lambda name: tower.fits(name, plain), count=2)
    assert novel.names == ("a cat", "fox")
    assert "1 auxiliary names are too long" in novel.warnings[0]
    assert "has more names than the 2 used" in novel.warnings[1]
    assert long in novel_names(file, ["dog"]).names
    assert novel_names(file, ["dog"], room=lambda name: tower.fits(name, crowded)).names == ("fox", "wolf")
    tower(crowded, ["fox", "wolf"])


def test_fewer_than_asked_for_are_told_and_fewer_than_the_default_are_not() -> None:
    novel, default = (novel_names("wordnet", ["golden retriever"], count=count) for count in (300, COUNT))
    assert 10 < len(novel.names) < 300
    assert novel.warnings == (f"wordnet gave {len(novel.names)} auxiliary names, fewer than the 300 asked for",)
    assert (default.names, default.warnings) == (novel.names, ())


def test_names_that_wordnet_does_not_know_get_random_nouns() -> None:
    novel, words = novel_names("wordnet", ["SKU-10001", "SKU-10002"]), novel_names("words", ["SKU-10001", "SKU-10002"])
    assert (novel.names, novel.source) == (words.names, "words")
    assert len(novel.names) == COUNT
    assert len(novel.warnings) == 1


def test_a_file_is_a_source_and_a_sources_name_goes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words").write_text("fox\n")
    monkeypatch.chdir(tmp_path)
    assert type(open_novel_source("words")) is kinds.get("words")
    for text in ("./words", "file:words", str(tmp_path / "words")):
        assert type(open_novel_source(text)) is kinds.get("file")
        assert open_novel_source(text).name == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wordnt", "wordnt .*dataset:NAME, .* or FILE; .*wordnet"),
        ("wordnt:3", "wordnet"),
        ("imagenet", "imagenet .* or FILE$"),
        ("", "dataset:NAME"),
        ("words:3", "only words"),
        ("none:", "only none"),
        ("llm:gpt", "only llm"),
    ],
)
def test_what_cannot_be_a_source(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_novel_source(text)
