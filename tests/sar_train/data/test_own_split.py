"""Splits of our own: the right shares, always the same, and never passed off as the published ones."""

import json
import shutil
from pathlib import Path

import pytest
from support.coop import link_photos
from support.photos import SHARED, needs_shared

from sar_train.data.coop_layout import load_dataset, read_listing
from sar_train.data.own_split import NAME_FIXES, class_folders, own_split
from sar_train.errors import DataError
from sar_train.training.protocol import plan


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
    dataset = load_dataset("eurosat", tmp_path)
    assert dataset.class_names == tuple(NAME_FIXES["eurosat"].values())
    assert dataset.class_names[3] == "Highway or Road"
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        labels = [p.label for p in dataset.images(split)]
        assert [labels.count(label) for label in range(10)] == [count] * 10
    assert len({p.path for split in ("train", "val", "test") for p in dataset.images(split)}) == 100
    assert load_dataset("eurosat", tmp_path) == dataset


def test_it_is_said_and_base_to_new_still_runs(tmp_path: Path) -> None:
    dataset = load_dataset("eurosat", write_eurosat(tmp_path))
    assert dataset.split_origin == "ours"
    (warning,) = dataset.warnings
    assert "split_zhou_EuroSAT.json is not there, so this is our own split and not the published one" in warning
    assert warning.endswith("results cannot be compared with papers; get the file as CoOp's DATASETS.md "
                            "(github.com/KaiyangZhou/CoOp) says")  # fmt: skip
    chosen = plan("auto", dataset.class_names, published_split=dataset.published_split)
    assert (chosen.protocol, len(chosen.base), len(chosen.new)) == ("base-to-new", 5, 5)


def test_the_authors_test_photos_stay_test_photos(tmp_path: Path) -> None:
    write_pets(tmp_path)
    dataset = load_dataset("pets", tmp_path)
    assert dataset.class_names == ("bombay", "beagle")
    assert [len(dataset.images(split)) for split in ("train", "val", "test")] == [16, 4, 4]
    assert {p.path.stem.split("_")[1] for p in dataset.test} == {"10", "11"}
    assert "(the test photos are those that its authors list)" in dataset.warnings[0]
    target = load_dataset("pets", tmp_path, whole=True)
    assert (target.train, target.val, target.test) == ((), (), dataset.test)


def test_as_a_target_all_photos_are_tested_on(tmp_path: Path) -> None:
    target = load_dataset("eurosat", write_eurosat(tmp_path), whole=True)
    assert (len(target.train), len(target.val), len(target.test)) == (0, 0, 100)
    assert "(all photos are tested on)" in target.warnings[0]


def test_a_listed_photo_that_is_missing(tmp_path: Path) -> None:
    folder = write_pets(tmp_path)
    (folder / "images/beagle_3.jpg").unlink()
    with pytest.raises(DataError, match="1 of 24.*beagle_3.jpg"):
        load_dataset("pets", tmp_path)
    assert len(load_dataset("pets", tmp_path, allow_missing=True).class_names) == 2


def test_it_is_kept(tmp_path: Path) -> None:
    folder = write_eurosat(tmp_path)
    first = own_split("eurosat", folder, tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("split.json")
    assert path.parent.name.startswith("eurosat-")
    assert str(tmp_path) not in path.read_text()
    content = json.loads(path.read_text())
    content["train"][0], content["test"][0] = content["test"][0], content["train"][0]
    path.write_text(json.dumps(content))
    again = own_split("eurosat", folder, tmp_path / "cache")
    assert again[1]["train"][0] == first[1]["test"][0]


@needs_shared
def test_names_and_classes_of_caltech_are_those_of_the_published_split() -> None:
    published = read_listing("caltech101", SHARED / "caltech-101")
    names, pool = class_folders("caltech101", SHARED / "caltech-101/101_ObjectCategories")
    assert names == published.class_names
    assert set(pool) == {row for rows in published.rows.values() for row in rows}


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
        load_dataset("eurosat", tmp_path)
    assert "River" not in load_dataset("eurosat", tmp_path, allow_missing=True).class_names
