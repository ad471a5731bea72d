from pathlib import Path

from sar_train.data.photos import Photo, PhotoDataset


def dataset() -> PhotoDataset:
    root = Path("photos")
    rows = [(root / f"{label}{i}.jpg", label) for label in range(3) for i in range(2)]
    photos = tuple(Photo(path, label) for path, label in rows)
    return PhotoDataset("x", ("a", "b", "c"), "a photo of a {}.", root, photos, photos[:2], photos[2:])


def test_splits_and_relative_paths() -> None:
    x = dataset()
    assert x.photos("val") == x.val
    assert x.photos("test") == x.test
    assert x.relative(x.train[3]) == "11.jpg"
    assert x.relative(Photo(Path("elsewhere/y.jpg"), 0)) == "elsewhere/y.jpg"


def test_keeping_closes_up_labels() -> None:
    x = dataset()
    kept = x.keeping({"train": x.train[2:], "val": x.val, "test": x.test}, "two photos left out")
    assert kept.class_names == ("b", "c")
    assert [p.label for p in kept.train] == [0, 0, 1, 1]
    assert kept.val == ()
    assert kept.warnings == ("two photos left out and 1 classes",)


def test_targets_keep_the_classes_of_their_test_photos() -> None:
    x = dataset()
    target = PhotoDataset("x", x.class_names, x.template, x.root, (), (), x.train)
    kept = target.keeping({"train": (), "val": (), "test": x.train[4:]}, "less")
    assert (kept.class_names, [p.label for p in kept.test]) == (("c",), [0, 0])


def test_relative_paths_are_text() -> None:
    for root, path, expected in (
        ("/", "/a/b.jpg", "a/b.jpg"),
        (".", "a/b.jpg", "a/b.jpg"),
        ("/data/x", "/data/xy/b.jpg", "/data/xy/b.jpg"),
    ):
        x = PhotoDataset("x", ("a",), "{}", Path(root), (), (), ())
        assert x.relative(Photo(Path(path), 0)) == expected
