import json
import re
from pathlib import Path

import pytest
from support.photos import write_photo

from sar_train.data.lists import load_list
from sar_train.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    names = [f"img/{i}.png" for i in range(6)]
    for i, name in enumerate(names):
        write_photo(tmp_path / name, i)
    return names


def write(tmp_path: Path, text: str, name: str = "list.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_with_splits(tmp_path: Path, photos: list[str]) -> None:
    rows = zip(photos, ["cat", "dog"] * 3, ["train", "train", "val", "", "test", "test"], strict=True)
    path = write(tmp_path, "\ufeffpath, label ,split\n" + "".join(",".join(row) + "\n" for row in rows))
    dataset = load_list(path, 16, 1)
    assert dataset.class_names == ("cat", "dog")
    assert [(p.path.name, p.label) for p in dataset.train] == [("0.png", 0), ("1.png", 1), ("3.png", 1)]
    assert [p.path.name for p in dataset.val] == ["2.png"]
    assert [p.path.name for p in dataset.test] == ["4.png", "5.png"]
    assert (dataset.name, dataset.published_split) == ("list", False)


def test_jsonl_without_splits(tmp_path: Path, photos: list[str]) -> None:
    rows = [{"path": name, "label": "émeu big", "more": [1]} for name in photos]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    dataset = load_list(write(tmp_path, text, "list.jsonl"), 2, 1)
    assert dataset.class_names == ("émeu big",)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (2, 2, 2)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("file,class\n", "l.csv", "expected the header path,label[,split], got 'file,class'"),
        ("", "l.csv", "expected the header path,label"),
        ("path,label\n", "l.csv", "no photos listed"),
        ("path,label\nimg/0.png,\n", "l.csv", "line 2: expected a path and a label, got 'img/0.png' and ''"),
        ("path,label\nimg/0.png\n", "l.csv", "line 2: expected a path and a label"),
        ("path,label,split\nimg/0.png,a,dev\n", "l.csv", "line 2: expected split train, val or test, got 'dev'"),
        ("path,label,split\nimg/0.png,a,test\n", "l.csv", "no photo has the split train"),
        ("path,label\nimg/0.png,a\nimg/0.png,b\n", "l.csv", "line 3: img/0.png is listed twice"),
        ("path,label\nimg/0.png,a\nimg/7.png,a\nimg/8.png,a\n", "l.csv", "2 of 3 photos are missing, the first is "),
        ('{"path": "img/0.png", "label": "a"}\n{', "l.jsonl", "line 2: not JSON"),
        ("[]", "l.jsonl", "line 1: expected an object"),
        ('{"path": "img/0.png", "label": null}', "l.jsonl", "line 1: expected a path and a label"),
    ],
)
def test_bad_lists(tmp_path: Path, photos: list[str], text: str, name: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        load_list(write(tmp_path, text, name), 16, 1)


def test_binary_and_missing_lists(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        load_list(tmp_path / "l.csv", 16, 1)
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        load_list(tmp_path / "none.csv", 16, 1)
