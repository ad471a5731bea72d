"""What a split file may not be; the real ones are read in test_coop_layout."""

import re
from pathlib import Path
from typing import Any

import pytest
from support.coop import write_split

from sar_train.data.layouts import LAYOUTS
from sar_train.data.split_file import below, read_split
from sar_train.errors import DataError

ROWS = [["a/1.png", 0, "ant"], ["b/1.png", 1, "bee"]]


def read(folder: Path, content: Any) -> Any:
    return read_split(write_split(folder, "caltech101", content, photos=False) / LAYOUTS["caltech101"].split_file)


def test_names_and_rows(tmp_path: Path) -> None:
    names, rows = read(tmp_path, {"train": ROWS, "val": [], "test": ROWS[:1], "licence": "more keys do not matter"})
    assert names == ("ant", "bee")
    assert rows == {"train": [("a/1.png", 0), ("b/1.png", 1)], "val": [], "test": [("a/1.png", 0)]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ([], "expected an object with the lists train, val and test"),
        ({"train": ROWS, "val": []}, "expected an object with the lists"),
        ({"train": [["a.png", "0", "ant"]], "val": [], "test": []}, r"train[0]: expected [path, label, class name]"),
        ({"train": [["a.png", True, "ant"]], "val": [], "test": []}, r"train[0]: expected [path, label, class name]"),
        ({"train": [["../a.png", 0, "ant"]], "val": [], "test": []}, "expected a path below the image folder"),
        ({"train": [["/a.png", 0, "ant"]], "val": [], "test": []}, "expected a path below the image folder"),
        ({"train": [["..\\a.png", 0, "ant"]], "val": [], "test": []}, "expected a path below the image folder"),
        ({"train": [["a\0.png", 0, "ant"]], "val": [], "test": []}, "expected a path below the image folder"),
        ({"train": [*ROWS, ["c", 0, "bee"]], "val": [], "test": []}, "label 0 has two names, 'ant' and 'bee'"),
        ({"train": [["a", 1, "ant"]], "val": [], "test": []}, "expected training photos for labels 0 to C - 1"),
        ({"train": [], "val": [], "test": []}, "expected training photos"),
        ({"train": ROWS, "val": [], "test": [["c", 2, "cat"]]}, "got 2 labels of 3"),
    ],
)
def test_damaged_split_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read(tmp_path, content)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_split(tmp_path / "none.json")


def test_paths_stay_below() -> None:
    assert below("a/b..c/1.jpg", "x") == "a/b..c/1.jpg"
