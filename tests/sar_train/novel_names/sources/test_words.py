"""Random nouns."""

from __future__ import annotations

from sar_train.novel_names import novel_names


def test_words_repeat_with_the_seed_alone() -> None:
    first = novel_names("words", ["dog"], count=30)
    assert first == novel_names("words", ["grand piano"], count=30)
    assert first.names != novel_names("words", ["dog"], count=30, seed=2).names
    assert len(first.names) == 30
