"""Datasets by name: the published splits with real and generated photos, and what is missing."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.coop import link_photos, write_split
from support.opened import opened
from support.photos import SHARED, needs_shared, write_photo

from sar_train.data.coop import NAME_FIXES, class_folders, read_split
from sar_train.data.layouts import LAYOUTS, find, layout_in
from sar_train.data.splits import base_new
from sar_train.errors import DataError
from sar_train.training.protocol import plan

ROWS = [["a/1.png", 0, "ant"], ["b/1.png", 1, "bee"]]


def make_caltech(root: Path, present: list[str]) -> Path:
    folder, content = (
        root / "caltech-101",
        {"train": ROWS, "val": [], "test": [["a/2.png", 0, "ant"], ["b/2.png", 1, "bee"]]},
    )
    write_split(folder, "caltech101", content, photos=False)
    for name in present:
        write_photo(folder / "101_ObjectCategories" / name)
    return root


@needs_shared
def test_caltech101() -> None:
    dataset = opened("Caltech101", data_root=SHARED)
    assert (len(dataset.photos("train")), len(dataset.photos("val")), len(dataset.photos("test"))) == (4128, 1649, 2465)
    assert len(dataset.class_names) == 100
    assert [len(part) for part in base_new(range(100))] == [50, 50]
    assert dataset.class_names[:4] == ("face", "leopard", "motorbike", "accordion")
    assert dataset.published_split
    assert dataset.warnings == ()
    assert dataset.template == "a photo of a {}."
    assert dataset == opened("caltech-101", data_root=SHARED / "caltech-101")
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
    with pytest.raises(DataError, match="4440 of 5640"):
        opened("dtd", data_root=SHARED)
    dataset = opened("DescribableTextures", data_root=SHARED, allow_missing=True)
    assert len(dataset.class_names) == 10
    assert (len(dataset.photos("train")), len(dataset.photos("val")), len(dataset.photos("test"))) == (600, 240, 360)
    assert {p.label for p in dataset.photos("train")} == set(range(10))
    assert dataset.warnings == ("dataset dtd: went on without 4440 of 5640 photos and 37 classes",)


@needs_shared
@pytest.mark.parametrize("name", ["eurosat", "oxford_flowers", "oxford_pets", "stanford_cars", "ucf101"])
def test_the_real_split_files_over_generated_photos(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    content = json.loads((SHARED / "splits" / layout.split_file).read_text())
    write_split(tmp_path / layout.folder, name, content)
    dataset = opened(name, data_root=tmp_path)
    assert (len(dataset.photos("train")), len(dataset.photos("val")), len(dataset.photos("test"))) == layout.counts
    assert len(dataset.class_names) == layout.classes
    assert (dataset.warnings, dataset.split_origin) == ((), "published")
    first = content["train"][0]
    assert dataset.photos("train")[0].path == first[0]
    assert dataset.class_names[dataset.photos("train")[0].label] == first[2]
    (tmp_path / layout.folder / layout.images / first[0]).unlink()
    with pytest.raises(DataError, match=first[0]):
        opened(name, data_root=tmp_path)


@needs_shared
def test_dtd_halves_are_those_of_what_exists() -> None:
    dataset = opened("dtd", data_root=SHARED, allow_missing=True)
    chosen = plan("auto", dataset.class_names, published_split=dataset.published_split)
    assert [dataset.class_names[label] for label in chosen.base] == ["banded", "blotchy", "braided", "bubbly", "bumpy"]
    assert [dataset.class_names[label] for label in chosen.new][:2] == ["chequered", "cobwebbed"]
    target = opened("dtd", data_root=SHARED, allow_missing=True, target=True)
    assert (target.class_names, list(target.splits)) == (dataset.class_names, ["test"])
    assert target.photos("test") == dataset.photos("test")


@needs_shared
def test_as_a_target_the_published_test_photos_alone() -> None:
    whole, dataset = opened("caltech101", data_root=SHARED, target=True), opened("caltech101", data_root=SHARED)
    assert (whole.photos("train"), whole.photos("val"), whole.photos("test")) == ((), (), dataset.photos("test"))
    assert whole.class_names == dataset.class_names


def test_names_are_forgiving_and_the_nearest_is_offered() -> None:
    assert find("Oxford-Pets") == find("OxfordPets") == find("pets") == "oxford_pets"
    assert find("nothing") is None
    with pytest.raises(DataError, match="caltech101"):
        opened("caltech", data_root=Path())


def test_no_split_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split_zhou_Caltech101.json"):
        opened("caltech101", data_root=tmp_path)


def test_missing_photos(tmp_path: Path) -> None:
    make_caltech(tmp_path, ["a/1.png", "a/2.png"])
    with pytest.raises(DataError, match="2 of 4.*b.1.png.*--allow-missing"):
        opened("caltech101", data_root=tmp_path)
    dataset = opened("caltech101", data_root=tmp_path, allow_missing=True)
    assert dataset.class_names == ("ant",)
    assert [Path(p.path).name for p in (*dataset.photos("train"), *dataset.photos("test"))] == ["1.png", "2.png"]


def test_no_photo_at_all_is_never_allowed(tmp_path: Path) -> None:
    make_caltech(tmp_path, [])
    images = tmp_path / "caltech-101/101_ObjectCategories"
    with pytest.raises(DataError, match=images.name):
        opened("caltech101", data_root=tmp_path, allow_missing=True)
    images.mkdir()
    with pytest.raises(DataError, match="4 of 4"):
        opened("caltech101", data_root=tmp_path, allow_missing=True)


def test_a_loop_of_links(tmp_path: Path) -> None:
    images = link_photos(tmp_path / "eurosat/2750", ["River/1.jpg"])
    (images / "Forest").symlink_to("Forest")
    with pytest.raises(DataError, match="Forest"):
        opened("eurosat", data_root=tmp_path)


def write_eurosat(root: Path, count: int = 10) -> Path:
    folder = root / "eurosat"
    link_photos(folder / "2750", [f"{name}/{name}_{i}.jpg" for name in NAME_FIXES["eurosat"] for i in range(count)])
    return folder


def write_pets(root: Path) -> Path:
    folder = root / "oxford_pets"
    link_photos(folder / "images", [f"{name}_{i}.jpg" for name in ("Bombay", "beagle") for i in range(12)])
    (folder / "annotations").mkdir()
    for part, numbers in (("trainval", range(10)), ("test", range(10, 12))):
        rows = [f"{name}_{i} {k} 1 1\n" for k, name in ((1, "Bombay"), (2, "beagle")) for i in numbers]
        (folder / "annotations" / f"{part}.txt").write_text("".join(rows))
    return folder


def test_half_a_fifth_and_the_rest(tmp_path: Path) -> None:
    write_eurosat(tmp_path)
    dataset = opened("eurosat", data_root=tmp_path)
    assert dataset.class_names == tuple(NAME_FIXES["eurosat"].values())
    assert dataset.class_names[3] == "Highway or Road"
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        labels = [p.label for p in dataset.photos(split)]
        assert [labels.count(label) for label in range(10)] == [count] * 10
    assert len({p.path for split in ("train", "val", "test") for p in dataset.photos(split)}) == 100
    assert opened("eurosat", data_root=tmp_path) == dataset


def test_it_is_said_and_base_to_new_still_runs(tmp_path: Path) -> None:
    dataset = opened("eurosat", data_root=write_eurosat(tmp_path))
    assert dataset.split_origin == "ours"
    (warning,) = dataset.warnings
    assert "split_zhou_EuroSAT.json is not there, so this is our own split and not the published one" in warning
    assert warning.endswith("results cannot be compared with papers; get the file as CoOp's DATASETS.md "
                            "(github.com/KaiyangZhou/CoOp) says")  # fmt: skip
    chosen = plan("auto", dataset.class_names, published_split=dataset.published_split)
    assert (chosen.protocol, len(chosen.base), len(chosen.new)) == ("base-to-new", 5, 5)


def test_the_authors_test_photos_stay_test_photos(tmp_path: Path) -> None:
    write_pets(tmp_path)
    dataset = opened("pets", data_root=tmp_path)
    assert dataset.class_names == ("bombay", "beagle")
    assert [len(dataset.photos(split)) for split in ("train", "val", "test")] == [16, 4, 4]
    assert {Path(p.path).stem.split("_")[1] for p in dataset.photos("test")} == {"10", "11"}
    assert "(the test photos are those that its authors list)" in dataset.warnings[0]
    target = opened("pets", data_root=tmp_path, target=True)
    assert (target.photos("train"), target.photos("val"), target.photos("test")) == ((), (), dataset.photos("test"))


def test_as_a_target_all_photos_are_tested_on(tmp_path: Path) -> None:
    target = opened("eurosat", data_root=write_eurosat(tmp_path), target=True)
    assert (len(target.photos("train")), len(target.photos("val")), len(target.photos("test"))) == (0, 0, 100)
    assert "(all photos are tested on)" in target.warnings[0]


def test_a_listed_photo_that_is_missing(tmp_path: Path) -> None:
    folder = write_pets(tmp_path)
    (folder / "images/beagle_3.jpg").unlink()
    with pytest.raises(DataError, match="1 of 24.*beagle_3.jpg"):
        opened("pets", data_root=tmp_path)
    assert len(opened("pets", data_root=tmp_path, allow_missing=True).class_names) == 2


@needs_shared
def test_names_and_classes_of_caltech_are_those_of_the_published_split() -> None:
    published = opened("caltech101", data_root=SHARED)
    names, photos = class_folders("caltech101", SHARED / "caltech-101/101_ObjectCategories")
    assert names == published.class_names
    assert set(photos) == {photo for of_split in published.splits.values() for photo in of_split}


def test_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2750, not there"):
        class_folders("eurosat", tmp_path / "2750")
    (tmp_path / "2750").mkdir()
    with pytest.raises(DataError, match="got none"):
        class_folders("eurosat", tmp_path / "2750")
    (tmp_path / "2750" / "River").mkdir()
    with pytest.raises(DataError, match="River"):
        class_folders("eurosat", tmp_path / "2750")


def test_too_few_class_folders(tmp_path: Path) -> None:
    shutil.rmtree(write_eurosat(tmp_path) / "2750/River")
    with pytest.raises(DataError, match="2750: .*10.*9.*--allow-missing"):
        opened("eurosat", data_root=tmp_path)
    assert "River" not in opened("eurosat", data_root=tmp_path, allow_missing=True).class_names


def read(folder: Path, content: Any) -> Any:
    return read_split(write_split(folder, "caltech101", content, photos=False) / LAYOUTS["caltech101"].split_file)


def test_names_and_rows(tmp_path: Path) -> None:
    names, rows = read(tmp_path, {"train": ROWS, "val": [], "test": ROWS[:1], "licence": "more keys do not matter"})
    assert names == ("ant", "bee")
    assert rows == {"train": [("a/1.png", 0), ("b/1.png", 1)], "val": [], "test": [("a/1.png", 0)]}


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ([], "train, val and test"),
        ({"train": ROWS, "val": []}, "train, val and test"),
        ({"train": [["a.png", "0", "ant"]], "val": [], "test": []}, "train[0]"),
        ({"train": [["a.png", True, "ant"]], "val": [], "test": []}, "train[0]"),
        ({"train": [["../a.png", 0, "ant"]], "val": [], "test": []}, "'../a.png'"),
        ({"train": [["/a.png", 0, "ant"]], "val": [], "test": []}, "'/a.png'"),
        ({"train": [["..\\a.png", 0, "ant"]], "val": [], "test": []}, repr("..\\a.png")),
        ({"train": [["a\0.png", 0, "ant"]], "val": [], "test": []}, repr("a\0.png")),
        ({"train": [*ROWS, ["c", 0, "bee"]], "val": [], "test": []}, "'ant' and 'bee'"),
        ({"train": [["a", 1, "ant"]], "val": [], "test": []}, "1 labels of 1"),
        ({"train": [], "val": [], "test": []}, "0 labels"),
        ({"train": ROWS, "val": [], "test": [["c", 2, "cat"]]}, "2 labels of 3"),
    ],
)
def test_damaged_split_files(tmp_path: Path, content: Any, fact: str) -> None:
    with pytest.raises(DataError, match=re.escape(fact)):
        read(tmp_path, content)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.json"):
        read_split(tmp_path / "none.json")
