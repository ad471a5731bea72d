import json
from pathlib import Path

import pytest
from support.opened import opened
from support.photos import write_photo

from sar_train.data.readers.base import reader_of
from sar_train.data.readers.folder import ClassFolders
from sar_train.data.readers.lists import Metadata, read_rows
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
    assert dataset.class_names == ("cat", "dog")
    assert [(Path(p.path).name, p.label) for p in dataset.photos("train")] == [("0.png", 0), ("1.png", 1), ("3.png", 1)]
    assert [Path(p.path).name for p in dataset.photos("val")] == ["2.png"]
    assert [Path(p.path).name for p in dataset.photos("test")] == ["4.png", "5.png"]
    assert (dataset.name, dataset.published_split) == ("list", False)


def test_jsonl_without_splits(tmp_path: Path, photos: list[str]) -> None:
    rows = [{"path": name, "label": "émeu big", "more": [1]} for name in photos]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    dataset = opened(write(tmp_path, text, "list.jsonl"), 2, 1)
    assert dataset.class_names == ("émeu big",)
    assert (len(dataset.photos("train")), len(dataset.photos("val")), len(dataset.photos("test"))) == (2, 2, 2)


@pytest.mark.parametrize(
    ("text", "name", "fact"),
    [
        ("file,class\n", "l.csv", "'file,class'"),
        ("", "l.csv", "header .*''"),
        ("path,label\n", "l.csv", "no photos"),
        ("path,label\nimg/0.png,\n", "l.csv", "line 2: .*'img/0.png' and ''"),
        ("path,label\nimg/0.png\n", "l.csv", "line 2: .*'img/0.png' and ''"),
        ("path,label,split\nimg/0.png,a,dev\n", "l.csv", "line 2: .*'dev'"),
        ("path,label,split\nimg/0.png,a,test\n", "l.csv", "split train"),
        ("path,label\nimg/0.png,a\nimg/0.png,b\n", "l.csv", "line 3: img/0.png .*twice"),
        ("path,label\nimg/0.png,a\nimg/7.png,a\nimg/8.png,a\n", "l.csv", "2 of 3 .*img.7.png"),
        ('{"path": "img/0.png", "label": "a"}\n{', "l.jsonl", "line 2: .*JSON"),
        ("[]", "l.jsonl", "line 1: .*object"),
        ('{"path": "img/0.png", "label": null}', "l.jsonl", "line 1: .*'img/0.png' and ''"),
    ],
)
def test_bad_lists(tmp_path: Path, photos: list[str], text: str, name: str, fact: str) -> None:
    with pytest.raises(DataError, match=fact):
        opened(write(tmp_path, text, name), 16, 1)


@pytest.mark.parametrize("name", ["binary.csv", "none.csv"])
def test_binary_and_missing_lists(tmp_path: Path, name: str) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match=f"{name}: "):
        opened(tmp_path / name, 16, 1)


def test_a_list_as_a_target(tmp_path: Path, photos: list[str]) -> None:
    plain = write(tmp_path, "path,label\n" + "".join(f"{name},cat\n" for name in photos))
    assert len(opened(plain, 1, 1, target=True).photos("test")) == 6
    rows = zip(photos, ["train"] * 3 + ["test"] * 3, strict=True)
    split = write(tmp_path, "path,label,split\n" + "".join(f"{name},cat,{part}\n" for name, part in rows))
    assert [Path(p.path).name for p in opened(split, 1, 1, target=True).photos("test")] == ["3.png", "4.png", "5.png"]
    only = write(tmp_path, f"path,label,split\n{photos[0]},cat,test\n")
    assert len(opened(only, 1, 1, target=True).photos("test")) == 1


def test_metadata_beside_the_photos(tmp_path: Path, photos: list[str]) -> None:
    rows = [f"{name},{'cat' if i % 2 else 'dog'},x" for i, name in enumerate(photos)]
    write(tmp_path, "file_name,label,photographer\n" + "\n".join(rows), "metadata.csv")
    assert isinstance(reader_of(tmp_path), Metadata)
    dataset = opened(tmp_path, 2, 1)
    assert (dataset.name, dataset.class_names) == (tmp_path.name, ("cat", "dog"))
    assert len(dataset.photos("train")) + len(dataset.photos("val")) + len(dataset.photos("test")) == 6
    assert isinstance(reader_of(tmp_path / "img"), ClassFolders)


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


def test_splits_by_the_folder_of_a_photo_or_a_column(tmp_path: Path) -> None:
    names = ["train/a.png", "train/b.png", "test/c.png", "test/d.png", "test/e.png"]
    for name in names:
        write_photo(tmp_path / name)
    write(tmp_path, "file_name,label\n" + "".join(f"{name},cat\n" for name in names), "metadata.csv")
    assert [Path(p.path).name for p in opened(tmp_path, 1, 1).photos("test")] == ["c.png", "d.png", "e.png"]
    text = "file_name,class,split\n" + "".join(
        f"{name},cat,{part}\n" for name, part in zip(names, ("train", "train", "val"), strict=False)
    )
    write(tmp_path, text, "metadata.csv")
    assert opened(tmp_path, 1, 1).warnings == ("no test split: accuracy is measured on the validation photos",)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("path,label\n", "'path,label'"),
        ("file_name,a,b\nimg/0.png,x,y\n", "line 2: .*a, b"),
        ("file_name\nimg/0.png\n", "line 2: .*no other"),
        ("file_name,label\nimg/9.png,x\n", "1 of 1 .*img.9.png"),
        ("file_name,label\nimg/0.png,x\nimg/../img/0.png,x\n", "line 3: .*twice"),
        ("file_name,label\n", "no photos"),
    ],
)
def test_bad_metadata(tmp_path: Path, photos: list[str], text: str, fact: str) -> None:
    write(tmp_path, text, "metadata.csv")
    with pytest.raises(DataError, match=fact):
        opened(tmp_path, 16, 1)


def test_two_metadata_files(tmp_path: Path) -> None:
    for name in ("metadata.csv", "metadata.jsonl"):
        write(tmp_path, "", name)
    with pytest.raises(DataError, match="both"):
        opened(tmp_path, 16, 1)


def test_every_row_is_read_by_its_own_line(tmp_path: Path) -> None:
    assert list(read_rows(write(tmp_path, 'path,label\n"a\nb",x\nc,y\n'), ("path", "label"))) == [
        (3, {"path": "a\nb", "label": "x"}), (4, {"path": "c", "label": "y"}),
    ]  # fmt: skip
