"""Lists of photos, by themselves and beside the photos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.opened import opened
from support.photos import write_photo

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
    dataset = opened(path, 16, 1)
    assert {split: [(p.path, p.label) for p in dataset.photos(split)] for split in dataset.splits} == {
        "train": [("img/0.png", 0), ("img/1.png", 1), ("img/3.png", 1)],
        "val": [("img/2.png", 0)],
        "test": [("img/4.png", 0), ("img/5.png", 1)],
    }


def test_jsonl_without_splits(tmp_path: Path, photos: list[str]) -> None:
    rows = [{"path": name, "label": "émeu big", "more": [1]} for name in photos]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    dataset = opened(write(tmp_path, text, "list.jsonl"), 2, 1)
    assert dataset.class_names == ("émeu big",)
    assert [len(dataset.photos(split)) for split in ("train", "val", "test")] == [2, 2, 2]


def test_metadata_in_each_split(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("validation", 2), ("test", 3)):
        rows = [{"file_name": f"{i}.png", "species": "ant" if i % 2 else "bee"} for i in range(count)]
        for row in rows:
            write_photo(tmp_path / split / row["file_name"])
        write(tmp_path / split, "\n".join(map(json.dumps, rows)), "metadata.jsonl")
    dataset = opened(tmp_path, 2, 1)
    assert dataset.class_names == ("ant", "bee")
    assert [len(dataset.photos(split)) for split in ("train", "val", "test")] == [4, 2, 3]
    assert dataset.photos("val")[0].path == "validation/1.png"


@pytest.mark.parametrize("column", ["label", "class", "class_name", "category", "species"])
def test_columns_of_metadata(tmp_path: Path, photos: list[str], column: str) -> None:
    more = ",photographer" if column != "species" else ",split"
    write(tmp_path, f"file_name,{column}{more}\n" + "".join(f"{name},cat,train\n" for name in photos), "metadata.csv")
    assert opened(tmp_path, 2, 1).class_names == ("cat",)


@pytest.mark.parametrize(
    ("name", "text", "fact"),
    [
        ("l.csv", "file,class\n", "header .*'file,class'"),
        ("l.csv", "", "header .*''"),
        ("l.csv", "path,label\n", "no photos"),
        ("l.csv", "path,label\nimg/0.png,\n", "line 2: .*'img/0.png' and ''"),
        ("l.csv", "path,label\nimg/0.png\n", "line 2: .*'img/0.png' and ''"),
        ("l.csv", 'path,label\n"img/0.png",a\n"a\nb",\n', "line 4: "),
        ("l.csv", "path,label,split\nimg/0.png,a,dev\n", "line 2: .*'dev'"),
        ("l.csv", "path,label\nimg/0.png,a\nimg/../img/0.png,b\n", "line 3: .*twice"),
        ("l.csv", "path,label\nimg/0.png,a\nimg/7.png,a\nimg/8.png,a\n", "2 of 3 .*img.7.png"),
        ("l.csv", "path,label\n\udcff,a\n", "l.csv: .*UTF-8"),
        ("l.jsonl", '{"path": "img/0.png", "label": "a"}\n{', "line 2: .*JSON"),
        ("l.jsonl", "[]", "line 1: .*object"),
        ("l.jsonl", '{"path": "img/0.png", "label": null}', "line 1: .*no other"),
        ("metadata.csv", "path,label\n", "'path,label'"),
        ("metadata.csv", "file_name,a,b\nimg/0.png,x,y\n", "line 2: .*a, b"),
        ("metadata.csv", "file_name\nimg/0.png\n", "line 2: .*no other"),
        ("metadata.csv", "file_name,label\nimg/9.png,x\n", "1 of 1 .*img.9.png"),
    ],
)
def test_damaged_lists(tmp_path: Path, photos: list[str], name: str, text: str, fact: str) -> None:
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=fact):
        opened(tmp_path if name == "metadata.csv" else tmp_path / name, 16, 1)


def test_two_metadata_files(tmp_path: Path) -> None:
    for name in ("metadata.csv", "metadata.jsonl"):
        write(tmp_path, "", name)
    with pytest.raises(DataError, match="both"):
        opened(tmp_path, 16, 1)
