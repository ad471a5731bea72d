"""A dataset's paths, labels and what is left of it."""

from pathlib import Path

import pytest

from sar_train.data.dataset import Dataset, Photo

PHOTOS = tuple(Photo(f"{label}{i}.jpg", label) for label in range(3) for i in range(2))


def dataset(**splits: tuple[Photo, ...]) -> Dataset:
    return Dataset("x", ("a", "b", "c"), Path("photos"), splits)


def test_classes_are_sorted_and_their_photos_are_not() -> None:
    made = Dataset.from_paths(
        "x", Path("p"), {"train": {"b": [Path("p/2.jpg"), Path("p/1.jpg")], "a": [Path("p/3.jpg")]}, "test": {"c": []}}
    )
    assert made.class_names == ("a", "b", "c")
    assert made.photos("train") == (("3.jpg", 0), ("2.jpg", 1), ("1.jpg", 1))
    assert (made.photos("test"), made.photos("val"), list(made.splits)) == ((), (), ["train", "test"])


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
    made = Dataset.from_paths("x", Path(root), {"test": {"a": [Path(path)]}})
    assert made.photos("test") == ((relative, 0),)
    assert made.root / relative == Path(path)


def test_keeping_closes_up_labels() -> None:
    whole = dataset(train=PHOTOS, val=PHOTOS[:2], test=PHOTOS[2:])
    smaller = whole.keeping({"train": PHOTOS[2:], "val": PHOTOS[:2], "test": PHOTOS[2:]}, "two photos left out")
    assert smaller.class_names == ("b", "c")
    assert [photo.label for photo in smaller.photos("train")] == [0, 0, 1, 1]
    assert smaller.photos("val") == ()
    assert smaller.warnings == ("two photos left out and 1 class",)


def test_targets_keep_the_classes_of_their_test_photos() -> None:
    smaller = dataset(test=PHOTOS).keeping({"test": PHOTOS[4:]}, "less")
    assert (smaller.class_names, [photo.label for photo in smaller.photos("test")]) == (("c",), [0, 0])
