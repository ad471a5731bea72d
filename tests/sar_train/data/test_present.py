from pathlib import Path

import pytest
from support.coop import link_photos

from sar_train.data.photos import Photo, PhotoDataset
from sar_train.data.present import Listings, without_missing
from sar_train.errors import DataError


def dataset(root: Path, train: list[str], test: list[str]) -> PhotoDataset:
    labels = {"a": 0, "b": 1, "c": 2}
    parts = [tuple(Photo(root / name, labels[name[0]]) for name in names) for names in (train, test)]
    return PhotoDataset("x", ("a", "b", "c"), "a {}.", root, parts[0], (), parts[1])


def test_a_folder_is_listed_once(tmp_path: Path) -> None:
    link_photos(tmp_path, ["a/1.jpg"])
    there = Listings()
    assert there.has(tmp_path / "a/1.jpg")
    (tmp_path / "a/1.jpg").unlink()
    assert there.has(tmp_path / "a/1.jpg")
    assert not there.has(tmp_path / "none/1.jpg")


def test_what_is_complete_stays_as_it_is(tmp_path: Path) -> None:
    x = dataset(link_photos(tmp_path, ["a/1.jpg", "b/1.jpg"]), ["a/1.jpg"], ["b/1.jpg"])
    assert without_missing(x, allow_missing=False) is x


def test_targets_keep_the_classes_that_have_test_photos(tmp_path: Path) -> None:
    x = dataset(link_photos(tmp_path, ["a/1.jpg", "c/1.jpg"]), [], ["a/1.jpg", "b/1.jpg", "c/1.jpg"])
    with pytest.raises(DataError, match=r"1 of 3 photos are missing, the first is .*b.1\.jpg; .* --allow-missing"):
        without_missing(x, allow_missing=False)
    kept = without_missing(x, allow_missing=True)
    assert kept.class_names == ("a", "c")
    assert [p.label for p in kept.test] == [0, 1]
    assert kept.warnings == ("dataset x: went on without 1 of 3 photos and 1 classes",)


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    x = dataset(link_photos(tmp_path, ["b/1.jpg"]), ["a/1.jpg"], ["b/1.jpg"])
    with pytest.raises(DataError, match="1 of 2 photos are missing"):
        without_missing(x, allow_missing=True)
