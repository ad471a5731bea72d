"""Datasets by name: the published splits with real and generated photos, and what is missing."""

import json
from pathlib import Path

import pytest
from support.coop import link_photos, write_split
from support.photos import SHARED, needs_shared, write_photo

from sar_train.data.coop_layout import load_dataset
from sar_train.data.dataset_lists import read_split
from sar_train.data.layouts import LAYOUTS, find, layout_in
from sar_train.data.shots import base_new
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
    with pytest.raises(DataError, match="4440 of 5640"):
        load_dataset("dtd", SHARED)
    dataset = load_dataset("DescribableTextures", SHARED, allow_missing=True)
    assert len(dataset.class_names) == 10
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (600, 240, 360)
    assert {p.label for p in dataset.train} == set(range(10))
    assert dataset.warnings == ("dataset dtd: went on without 4440 of 5640 photos and 37 classes",)


@needs_shared
@pytest.mark.parametrize("name", ["eurosat", "oxford_flowers", "oxford_pets", "stanford_cars", "ucf101"])
def test_the_real_split_files_over_generated_photos(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    content = json.loads((SHARED / "splits" / layout.split_file).read_text())
    write_split(tmp_path / layout.folder, name, content)
    dataset = load_dataset(name, tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == layout.counts
    assert len(dataset.class_names) == layout.classes
    assert (dataset.warnings, dataset.split_origin) == ((), "published")
    first = content["train"][0]
    assert dataset.relative(dataset.train[0]) == first[0]
    assert dataset.class_names[dataset.train[0].label] == first[2]
    (tmp_path / layout.folder / layout.images / first[0]).unlink()
    with pytest.raises(DataError, match=first[0]):
        load_dataset(name, tmp_path)


@needs_shared
def test_dtd_halves_are_those_of_what_exists() -> None:
    dataset = load_dataset("dtd", SHARED, allow_missing=True)
    chosen = plan("auto", dataset.class_names, published_split=dataset.published_split)
    assert [dataset.class_names[label] for label in chosen.base] == ["banded", "blotchy", "braided", "bubbly", "bumpy"]
    assert [dataset.class_names[label] for label in chosen.new][:2] == ["chequered", "cobwebbed"]
    target = load_dataset("dtd", SHARED, allow_missing=True, whole=True)
    assert (target.class_names, target.test, target.train) == (dataset.class_names, dataset.test, ())


@needs_shared
def test_as_a_target_the_published_test_photos_alone() -> None:
    whole, dataset = load_dataset("caltech101", SHARED, whole=True), load_dataset("caltech101", SHARED)
    assert (whole.train, whole.val, whole.test) == ((), (), dataset.test)
    assert whole.class_names == dataset.class_names


def test_names_are_forgiving_and_the_nearest_is_offered() -> None:
    assert find("Oxford-Pets") == find("OxfordPets") == find("pets") == "oxford_pets"
    assert find("nothing") is None
    with pytest.raises(DataError, match="caltech101"):
        load_dataset("caltech", Path())


def test_no_split_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split_zhou_Caltech101.json"):
        load_dataset("caltech101", tmp_path)


def test_missing_photos(tmp_path: Path) -> None:
    make_caltech(tmp_path, ["a/1.png", "a/2.png"])
    with pytest.raises(DataError, match="2 of 4.*b.1.png.*--allow-missing"):
        load_dataset("caltech101", tmp_path)
    dataset = load_dataset("caltech101", tmp_path, allow_missing=True)
    assert dataset.class_names == ("ant",)
    assert [p.path.name for p in (*dataset.train, *dataset.test)] == ["1.png", "2.png"]


def test_no_photo_at_all_is_never_allowed(tmp_path: Path) -> None:
    make_caltech(tmp_path, [])
    images = tmp_path / "caltech-101/101_ObjectCategories"
    with pytest.raises(DataError, match=images.name):
        load_dataset("caltech101", tmp_path, allow_missing=True)
    images.mkdir()
    with pytest.raises(DataError, match="4 of 4"):
        load_dataset("caltech101", tmp_path, allow_missing=True)


def test_a_loop_of_links(tmp_path: Path) -> None:
    images = link_photos(tmp_path / "eurosat/2750", ["River/1.jpg"])
    (images / "Forest").symlink_to("Forest")
    with pytest.raises(DataError, match="Forest"):
        load_dataset("eurosat", tmp_path)
