"""Files of names."""

from __future__ import annotations

from pathlib import Path

import pytest

from sar_train.errors import ConfigError, DataError
from sar_train.novel_names import Wanted, open_novel_source
from sar_train.novel_names.sources.file import read_text


def test_lines_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("# animals\n\n  wolf \nred_fox\n")
    assert list(open_novel_source(str(tmp_path / "x")).candidates(Wanted([], 5))) == ["wolf", "red_fox"]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "no name"),
        (b"# only\n", "no name"),
        (b"\xff\xfe", "UTF-8"),
        (b"a\0b", "binary"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, fact: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=fact):
        open_novel_source(str(tmp_path / "x")).candidates(Wanted([], 5))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.txt"):
        open_novel_source(f"file:{tmp_path / 'none.txt'}")
    with pytest.raises(ConfigError, match="file: "):
        open_novel_source("file")
    with pytest.raises(DataError, match=str(tmp_path)):
        read_text(tmp_path)
