"""Datasets by name: the published splits with real and generated photos, splits of our own, and what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.coop import link_photos, write_split
from support.opened import counts, opened
from support.photos import SHARED, needs_shared

from sar_train.data.dataset import SPLITS
from sar_train.data.layouts import LAYOUTS
from sar_train.data.protocol import plan
from sar_train.data.readers.coop import NAME_FIXES, read_split
from sar_train.errors import DataError

ROWS = [["a/1.png", 0, "ant"], ["b/1.png", 1, "bee"]]
CALTECH = {"train": ROWS, "val": [], "test": [["a/2.png", 0, "ant"], ["b/2.png", 1, "bee"]]}


@needs_shared
def test_caltech101() -> None:
    dataset = opened("Caltech101", data_root=SHARED)
    assert tuple(len(dataset.photos(split)) for split in SPLITS) == LAYOUTS["caltech101"].counts == (4128, 1649, 2465)
    assert len(dataset.class_names) == 100
    assert dataset.class_names[:4] == ("face", "leopard", "motorbike", "accordion")
    assert (dataset.published_split, dataset.warnings, dataset.template) == (True, (), "a photo of a {}.")
    assert dataset == opened("caltech-101", data_root=SHARED / "caltech-101") == opened(SHARED / "caltech-101")
    target = opened("caltech101", data_root=SHARED, target=True)
    assert (target.class_names, target.splits) == (dataset.class_names, {"test": dataset.photos("test")})


@needs_shared
@pytest.mark.parametrize("name", ["eurosat", "oxford_flowers", "oxford_pets", "stanford_cars", "ucf101"])
def test_the_real_split_files(name: str) -> None:
    layout, content = LAYOUTS[name], json.loads((SHARED / "splits" / LAYOUTS[name].split_file).read_text())
    names, splits = read_split(SHARED / "splits" / layout.split_file)
    assert len(names) == layout.classes
    assert tuple(len(splits[split]) for split in SPLITS) == layout.counts
    for split in SPLITS:
        assert [[path, label, names[label]] for path, label in splits[split]] == content[split]


@needs_shared
def test_dtd_goes_on_without_what_is_missing() -> None:
    with pytest.raises(DataError, match="4440 of 5640"):
        opened("dtd", data_root=SHARED)
    dataset = opened("DescribableTextures", data_root=SHARED, allow_missing=True)
    assert counts(dataset) == [(60, 24, 36)] * 10
    assert dataset.warnings == ("dataset dtd: went on without 4440 of 5640 photos and 37 classes",)
    chosen = plan("auto", dataset.class_names, published_split=dataset.published_split)
    assert [dataset.class_names[label] for label in chosen.base] == ["banded", "blotchy", "braided", "bubbly", "bumpy"]
    target = opened("dtd", data_root=SHARED, allow_missing=True, target=True)
    assert (target.class_names, target.splits) == (dataset.class_names, {"test": dataset.photos("test")})


def test_missing_photos(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "caltech-101", "caltech101", CALTECH, photos=False)
    images = folder / "101_ObjectCategories"
    with pytest.raises(DataError, match=images.name):
        opened("caltech101", data_root=tmp_path, allow_missing=True)
    images.mkdir()
    with pytest.raises(DataError, match="4 of 4"):
        opened("caltech101", data_root=tmp_path, allow_missing=True)
    link_photos(images, ["a/1.png", "a/2.png"])
    with pytest.raises(DataError, match="2 of 4.*b.1.png.*--allow-missing"):
        opened("caltech101", data_root=tmp_path)
    dataset = opened("caltech101", data_root=tmp_path, allow_missing=True)
    assert dataset.class_names == ("ant",)
    assert dataset.splits == {"train": (("a/1.png", 0),), "val": (), "test": (("a/2.png", 0),)}
    target = opened("caltech101", data_root=tmp_path, allow_missing=True, target=True)
    assert (target.class_names, target.splits) == (("ant",), {"test": (("a/2.png", 0),)})
    assert target.warnings == ("dataset caltech101: went on without 1 of 2 photos and 1 class",)


def write_eurosat(root: Path, count: int = 10) -> Path:
    folder = root / "eurosat"
    link_photos(folder / "2750", [f"{name}/{name}_{i}.jpg" for name in NAME_FIXES["eurosat"] for i in range(count)])
    return folder


def test_without_a_split_file_half_a_fifth_and_the_rest(tmp_path: Path) -> None:
    dataset = opened("eurosat", data_root=write_eurosat(tmp_path))
    assert dataset.class_names == tuple(NAME_FIXES["eurosat"].values())
    assert counts(dataset) == [(5, 2, 3)] * 10
    assert len({photo for split in SPLITS for photo in dataset.photos(split)}) == 100
    assert opened("eurosat", data_root=tmp_path) == dataset
    assert dataset.split_origin == "ours"
    (warning,) = dataset.warnings
    assert "split_zhou_EuroSAT.json is not there, so this is our own split and not the published one" in warning
    assert warning.endswith("results cannot be compared with papers; get the file as CoOp's DATASETS.md "
                            "(github.com/KaiyangZhou/CoOp) says")  # fmt: skip
    assert plan("auto", dataset.class_names, published_split=dataset.published_split).protocol == "base-to-new"
    target = opened("eurosat", data_root=tmp_path, target=True)
    assert counts(target) == [(0, 0, 10)] * 10
    assert "(all photos are tested on)" in target.warnings[0]


def test_without_a_split_file_the_authors_test_photos_stay_test_photos(tmp_path: Path) -> None:
    folder = tmp_path / "oxford_pets"
    link_photos(folder / "images", [f"{name}_{i}.jpg" for name in ("Bombay", "beagle") for i in range(12)])
    (folder / "annotations").mkdir()
    for file, numbers in (("trainval", range(10)), ("test", range(10, 12))):
        rows = [f"{name}_{i} {k} 1 1\n" for k, name in ((1, "Bombay"), (2, "beagle")) for i in numbers]
        (folder / "annotations" / f"{file}.txt").write_text("".join(rows))
    dataset = opened("pets", data_root=tmp_path)
    assert (dataset.class_names, counts(dataset)) == (("bombay", "beagle"), [(8, 2, 2)] * 2)
    assert {Path(p.path).stem.split("_")[1] for p in dataset.photos("test")} == {"10", "11"}
    assert "(the test photos are those that its authors list)" in dataset.warnings[0]
    assert opened("pets", data_root=tmp_path, target=True).splits == {"test": dataset.photos("test")}
    (folder / "images/beagle_3.jpg").unlink()
    with pytest.raises(DataError, match="1 of 24.*beagle_3.jpg"):
        opened("pets", data_root=tmp_path)


@needs_shared
def test_the_class_folders_of_caltech_are_the_published_classes(tmp_path: Path) -> None:
    published = opened("caltech101", data_root=SHARED)
    (tmp_path / "caltech-101").mkdir()
    images = SHARED / "caltech-101/101_ObjectCategories"
    (tmp_path / "caltech-101" / images.name).symlink_to(images, target_is_directory=True)
    drawn = opened("caltech101", data_root=tmp_path)
    assert drawn.class_names == published.class_names
    assert {*drawn.photos("train"), *drawn.photos("val"), *drawn.photos("test")} == {
        photo for split in SPLITS for photo in published.photos(split)
    }


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "split_zhou_Caltech101.json"),
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ([], "train, val and test"),
        ({"train": ROWS, "val": []}, "train, val and test"),
        ({"train": [["a.png", "0", "ant"]]}, "train[0]"),
        ({"train": [["a.png", True, "ant"]]}, "train[0]"),
        ({"train": [["../a.png", 0, "ant"]]}, "'../a.png'"),
        ({"train": [["/a.png", 0, "ant"]]}, "'/a.png'"),
        ({"train": [*ROWS, ["c", 0, "bee"]]}, "'ant' and 'bee'"),
        ({"train": [["a", 1, "ant"]]}, "1 labels of 1"),
        ({"train": []}, "0 labels"),
        ({"train": ROWS, "test": [["c", 2, "cat"]]}, "2 labels of 3"),
    ],
)
def test_damaged_split_files(tmp_path: Path, content: Any, fact: str) -> None:
    if isinstance(content, dict) and content.keys() != {"train", "val"}:
        content = {"val": [], "test": [], **content}
    if content is not None:
        write_split(tmp_path, "caltech101", content, photos=False)
        (tmp_path / "101_ObjectCategories").mkdir()
    with pytest.raises(DataError, match=re.escape(fact)):
        opened("caltech101", data_root=tmp_path)
