"""A dataset's paths, labels and what is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sar_train.data.dataset import Dataset, Photo

PHOTOS = tuple(Photo(f"{label}{i}.jpg", label) for label in range(3) for i in range(2))


def test_classes_are_sorted_and_their_photos_are_not() -> None:
    paths = {"train": {"b": [Path("p/2.jpg"), Path("p/1.jpg")], "a": [Path("p/3.jpg")]}, "test": {"c": []}}
    dataset = Dataset.from_paths("x", Path("p"), paths)
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.splits == {"train": (("3.jpg", 0), ("2.jpg", 1), ("1.jpg", 1)), "test": ()}


@pytest.mark.parametrize(
    ("root", "path", "relative"),
    [
        ("/", "/a/b.jpg", "a/b.jpg"),
        (".", "a/b.jpg", "a/b.jpg"),
        (".", "../b.jpg", "../b.jpg"),
        ("/data/x", "/data/xy/b.jpg", "/data/xy/b.jpg"),
        ("p", "p/../y.jpg", "../y.jpg"),
    ],
)
def test_paths_are_relative_and_lead_to_the_photo(root: str, path: str, relative: str) -> None:
    dataset = Dataset.from_paths("x", Path(root), {"test": {"a": [Path(path)]}})
    assert dataset.photos("test") == ((relative, 0),)
    assert dataset.root / relative == Path(path)


def test_keeping_closes_up_labels() -> None:
    whole = Dataset("x", ("a", "b", "c"), splits={"train": PHOTOS, "val": PHOTOS[:2], "test": PHOTOS[2:]})
    smaller = whole.keeping({**whole.splits, "train": PHOTOS[2:]}, "two photos left out")
    assert (smaller.class_names, smaller.photos("val")) == (("b", "c"), ())
    assert [photo.label for photo in smaller.photos("train")] == [0, 0, 1, 1]
    assert smaller.warnings == ("two photos left out and 1 class",)
