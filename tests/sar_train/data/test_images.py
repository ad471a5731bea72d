from pathlib import Path

from sar_train.data.images import ImageDataset, LabelledImage


def dataset() -> ImageDataset:
    root = Path("photos")
    rows = [(root / f"{label}{i}.jpg", label) for label in range(3) for i in range(2)]
    photos = tuple(LabelledImage(path, label) for path, label in rows)
    return ImageDataset("x", ("a", "b", "c"), "a photo of a {}.", root, photos, photos[:2], photos[2:])


def test_splits_and_relative_paths() -> None:
    x = dataset()
    assert x.images("val") == x.val
    assert x.images("test") == x.test
    assert x.relative(x.train[3]) == "11.jpg"
    assert x.relative(LabelledImage(Path("elsewhere/y.jpg"), 0)) == "elsewhere/y.jpg"


def test_keeping_closes_up_labels() -> None:
    x = dataset()
    kept = x.keeping({"train": x.train[2:], "val": x.val, "test": x.test}, "two photos left out")
    assert kept.class_names == ("b", "c")
    assert [p.label for p in kept.train] == [0, 0, 1, 1]
    assert kept.val == ()
    assert kept.warnings == ("two photos left out and 1 class",)


def test_targets_keep_the_classes_of_their_test_photos() -> None:
    x = dataset()
    target = ImageDataset("x", x.class_names, x.template, x.root, (), (), x.train)
    kept = target.keeping({"train": (), "val": (), "test": x.train[4:]}, "less")
    assert (kept.class_names, [p.label for p in kept.test]) == (("c",), [0, 0])


def test_relative_paths_are_text() -> None:
    for root, path, expected in (
        ("/", "/a/b.jpg", "a/b.jpg"),
        (".", "a/b.jpg", "a/b.jpg"),
        ("/data/x", "/data/xy/b.jpg", "/data/xy/b.jpg"),
    ):
        x = ImageDataset("x", ("a",), "{}", Path(root), (), (), ())
        assert x.relative(LabelledImage(Path(path), 0)) == expected
