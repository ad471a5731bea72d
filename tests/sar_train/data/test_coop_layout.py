"""The published splits, real and damaged."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.photos import SHARED, needs_shared, write_photo

from sar_train.data.coop_layout import LAYOUTS, find, layout_in, load_dataset, read_split
from sar_train.data.shots import base_new
from sar_train.errors import DataError
from sar_train.prompts import split_template

ROWS = [["a/1.png", 0, "ant"], ["b/1.png", 1, "bee"]]


def write_split(folder: Path, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LAYOUTS["caltech101"].split_file
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def make_caltech(root: Path, present: list[str]) -> Path:
    folder = root / "caltech-101"
    write_split(folder, {"train": ROWS, "val": [], "test": [["a/2.png", 0, "ant"], ["b/2.png", 1, "bee"]]})
    for name in present:
        write_photo(folder / "101_ObjectCategories" / name)
    return root


@needs_shared
def test_caltech101() -> None:
    dataset = load_dataset("Caltech101", SHARED)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (4128, 1649, 2465)
    assert len(dataset.class_names) == 100
    assert [len(part) for part in base_new(range(100))] == [50, 50]
    assert dataset.class_names[:4] == ("face", "leopard", "motorbike", "accordion")
    assert dataset.published_split
    assert dataset.warnings == ()
    assert dataset.template == "a photo of a {}."
    assert dataset == load_dataset("caltech-101", SHARED / "caltech-101")
    assert layout_in(SHARED / "caltech-101") == "caltech101"


@needs_shared
@pytest.mark.parametrize(
    ("name", "classes", "base", "counts"),
    [
        ("eurosat", 10, 5, (13500, 5400, 8100)),
        ("oxford_flowers", 102, 51, (4093, 1633, 2463)),
        ("oxford_pets", 37, 19, (2944, 736, 3669)),
        ("stanford_cars", 196, 98, (6509, 1635, 8041)),
        ("ucf101", 101, 51, (7639, 1898, 3783)),
    ],
)
def test_published_split_files(name: str, classes: int, base: int, counts: tuple[int, int, int]) -> None:
    names, rows = read_split(SHARED / "splits" / LAYOUTS[name].split_file)
    assert len(names) == classes
    assert len(base_new(range(classes))[0]) == base
    assert tuple(len(rows[split]) for split in ("train", "val", "test")) == counts


@needs_shared
def test_dtd_goes_on_without_what_is_missing() -> None:
    with pytest.raises(DataError, match=r"4440 of 5640 photos are missing, the first is .*dtd.images"):
        load_dataset("dtd", SHARED)
    dataset = load_dataset("DescribableTextures", SHARED, allow_missing=True)
    assert len(dataset.class_names) == 10
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (600, 240, 360)
    assert {p.label for p in dataset.train} == set(range(10))
    assert dataset.warnings == ("dataset dtd: went on without 4440 of 5640 photos and 37 classes",)


@needs_shared
@pytest.mark.parametrize("name", ["eurosat", "oxford_flowers", "oxford_pets", "stanford_cars", "ucf101"])
def test_photos_are_looked_for_where_the_layout_says(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    folder = tmp_path / layout.folder
    folder.mkdir()
    content = json.loads((SHARED / "splits" / layout.split_file).read_text())
    first = {row[1]: row for row in reversed(content["train"])}
    small = {"train": list(first.values()), "val": [], "test": content["test"][:2]}
    (folder / layout.split_file).write_text(json.dumps(small))
    for row in [*small["train"], *small["test"]]:
        write_photo(folder / layout.images / row[0], size=(8, 8))
    assert len(load_dataset(name, tmp_path).train) == len(first)


def test_names_are_forgiving_and_the_nearest_is_offered() -> None:
    assert find("Oxford-Pets") == find("OxfordPets") == find("pets") == "oxford_pets"
    assert find("nothing") is None
    with pytest.raises(DataError, match=r"unknown dataset 'caltech'; did you mean caltech101\?"):
        load_dataset("caltech", Path())
    for layout in LAYOUTS.values():
        split_template(layout.template)


def test_no_split_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected split_zhou_Caltech101.json in .*caltech-101, not there"):
        load_dataset("caltech101", tmp_path)


def test_missing_photos(tmp_path: Path) -> None:
    make_caltech(tmp_path, ["a/1.png", "a/2.png"])
    with pytest.raises(DataError, match=r"2 of 4 photos are missing, the first is .*b.1\.png.*--allow-missing"):
        load_dataset("caltech101", tmp_path)
    dataset = load_dataset("caltech101", tmp_path, allow_missing=True)
    assert dataset.class_names == ("ant",)
    assert [p.path.name for p in (*dataset.train, *dataset.test)] == ["1.png", "2.png"]


def test_no_photo_at_all_is_never_allowed(tmp_path: Path) -> None:
    make_caltech(tmp_path, [])
    with pytest.raises(DataError, match="4 of 4 photos are missing"):
        load_dataset("caltech101", tmp_path, allow_missing=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ([], "expected an object with the lists train, val and test"),
        ({"train": ROWS, "val": []}, "expected an object with the lists"),
        ({"train": [["a.png", "0", "ant"]], "val": [], "test": []}, r"train[0]: expected [path, label, class name]"),
        ({"train": [["a.png", True, "ant"]], "val": [], "test": []}, r"train[0]: expected [path, label, class name]"),
        ({"train": [["../a.png", 0, "ant"]], "val": [], "test": []}, "expected a path below the image folder"),
        ({"train": [["/a.png", 0, "ant"]], "val": [], "test": []}, "expected a path below the image folder"),
        ({"train": [*ROWS, ["c", 0, "bee"]], "val": [], "test": []}, "label 0 has two names, 'ant' and 'bee'"),
        ({"train": [["a", 1, "ant"]], "val": [], "test": []}, "expected training photos for labels 0 to C - 1"),
        ({"train": [], "val": [], "test": []}, "expected training photos"),
        ({"train": ROWS, "val": [], "test": [["c", 2, "cat"]]}, "got 2 labels of 3"),
    ],
)
def test_damaged_split_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_split(write_split(tmp_path, content))
