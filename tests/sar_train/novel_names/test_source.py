"""What a user may write, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from sar_train.errors import ConfigError
from sar_train.novel_names import forms, kinds, open_novel_source


def test_what_may_be_written() -> None:
    expected = "answer:FILE, dataset:NAME, llm, none, wordnet[:D|:A-B], words or FILE"
    assert forms() == expected
    assert sorted(kinds.entries) == ["answer", "dataset", "file", "llm", "none", "wordnet", "words"]


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
        ("wordnt", "wordnt .*answer:FILE, .* or FILE; .*wordnet"),
        ("wordnt:3", "wordnet"),
        ("imagenet", "imagenet .* or FILE$"),
        ("", "answer:FILE"),
        ("words:3", "words alone"),
        ("none:", "none alone"),
        ("llm:gpt", "llm alone"),
    ],
)
def test_what_cannot_be_a_source(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_novel_source(text)
