"""Saved answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sar_train.errors import ConfigError, DataError
from sar_train.novel_names import novel_names, open_novel_source


def test_an_answer_is_cleaned(tmp_path: Path) -> None:
    (tmp_path / "chat.md").write_text("Sure! Here you are:\n\n1. **Wolf** - a dog\n2. Dog\n3. Cat\n")
    found = novel_names(f"answer:{tmp_path / 'chat.md'}", ["dog"], new=["cat"])
    assert (found.names, found.overlap) == (("wolf",), 1)


def test_what_is_no_answer(tmp_path: Path) -> None:
    for text in ("answer", "answer:", f"answer:{tmp_path / 'none.md'}"):
        with pytest.raises(ConfigError, match="answer:FILE"):
            open_novel_source(text)
    (tmp_path / "chat.md").write_text("Sorry, I cannot.\n")
    with pytest.raises(DataError, match="chat.md"):
        novel_names(f"answer:{tmp_path / 'chat.md'}", ["dog"])
