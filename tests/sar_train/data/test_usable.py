"""Images that are missing or unreadable are left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.coop import link_photos
from support.opened import opened
from support.photos import write_folder
from support.tiny import tiny_backbone

from sar_train.data.dataset import Dataset, Photo
from sar_train.data.usable import without_missing, without_unreadable
from sar_train.errors import DataError


def dataset(root: Path, train: list[str], test: list[str]) -> Dataset:
    labels = {"a": 0, "b": 1, "c": 2}
    splits = {"train": train, "test": test}
    photos = {split: [Photo(name, labels[name[0]]) for name in names] for split, names in splits.items()}
    return Dataset("x", ("a", "b", "c"), root, photos)


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    x = dataset(link_photos(tmp_path, ["a/1.jpg", "a/2.jpg"]), ["a/1.jpg", "a/2.jpg", "c/1.jpg"], ["a/1.jpg"])
    with pytest.raises(DataError, match="1 of 4.*c.1.jpg"):
        without_missing(x, allow_missing=False)
    assert listed == [str(tmp_path / "a"), str(tmp_path / "c")]


def test_what_is_complete_stays_as_it_is(tmp_path: Path) -> None:
    x = dataset(link_photos(tmp_path, ["a/1.jpg", "b/1.jpg"]), ["a/1.jpg"], ["b/1.jpg"])
    assert without_missing(x, allow_missing=False) is x


def test_targets_keep_the_classes_that_have_test_photos(tmp_path: Path) -> None:
    x = dataset(link_photos(tmp_path, ["a/1.jpg", "c/1.jpg"]), [], ["a/1.jpg", "b/1.jpg", "c/1.jpg"])
    with pytest.raises(DataError, match="1 of 3.*b.1.jpg.*--allow-missing"):
        without_missing(x, allow_missing=False)
    kept = without_missing(x, allow_missing=True)
    assert kept.class_names == ("a", "c")
    assert [p.label for p in kept.photos("test")] == [0, 1]
    assert kept.warnings == ("dataset x: went on without 1 of 3 photos and 1 class",)


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    x = dataset(link_photos(tmp_path, ["b/1.jpg"]), ["a/1.jpg"], ["b/1.jpg"])
    with pytest.raises(DataError, match="1 of 2"):
        without_missing(x, allow_missing=True)


def test_unreadable_photos_are_left_out_and_counted(tmp_path: Path) -> None:
    dataset = opened(write_folder(tmp_path, {"a": 6, "b": 6}), 4, 1)
    spec = tiny_backbone().preprocess
    assert without_unreadable(dataset, spec) is dataset
    broken, cut = (dataset.root / dataset.photos(split)[row].path for split, row in (("train", 1), ("test", 0)))
    broken.write_bytes(b"broken")
    cut.write_bytes(cut.read_bytes()[:200])
    cleaned = without_unreadable(dataset, spec)
    assert [len(cleaned.photos(split)) for split in ("train", "val", "test")] == [7, 2, 1]
    assert cleaned.warnings[-1].startswith("2 unreadable photos left out (all of them: sar-experiment check-data ")
    assert f", the first: {broken}: not an" in cleaned.warnings[-1]


def test_a_class_may_be_lost_but_not_all(tmp_path: Path) -> None:
    dataset = opened(write_folder(tmp_path, {"a": 2, "b": 2}), 4, 1)
    (dataset.root / dataset.photos("train")[0].path).write_bytes(b"")
    cleaned = without_unreadable(dataset, tiny_backbone().preprocess)
    assert cleaned.class_names == ("b",)
    assert "and 1 class" in cleaned.warnings[-1]
    (dataset.root / dataset.photos("train")[1].path).write_bytes(b"")
    with pytest.raises(DataError, match="training"):
        without_unreadable(dataset, tiny_backbone().preprocess)


def test_targets(tmp_path: Path) -> None:
    dataset, spec = opened(write_folder(tmp_path, {"a": 2, "b": 1}), 4, 1, target=True), tiny_backbone().preprocess
    (dataset.root / dataset.photos("test")[2].path).write_bytes(b"broken")
    cleaned = without_unreadable(dataset, spec)
    assert (cleaned.class_names, len(cleaned.photos("test"))) == (("a",), 2)
    for photo in dataset.photos("test"):
        (dataset.root / photo.path).write_bytes(b"broken")
    with pytest.raises(DataError, match="no test"):
        without_unreadable(dataset, spec)
