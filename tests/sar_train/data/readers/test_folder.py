"""Folders of class folders, and telling domains from classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.coop import link_photos
from support.opened import counts, opened
from support.photos import SHARED, needs_shared, write_folder, write_photo

from sar_train.data.readers.folder import MOST_DOMAINS, domain_name, domains
from sar_train.errors import DataError


def test_shots_and_the_rest(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", {"tabby_cat": 12, "dog": 5, "fish": 4, "owl": 1})
    dataset = opened(root, 4, 1)
    assert dataset.name == "pets"
    assert dataset.class_names == ("dog", "fish", "owl", "tabby_cat")
    assert counts(dataset) == [(4, 0, 1), (3, 0, 1), (1, 0, 0), (4, 4, 4)]
    assert dataset.warnings == (
        "1 class has fewer than 4 photos to learn from (the fewest: 1)",
        "1 class has no photo left to test on ('owl')",
    )
    assert not dataset.published_split
    files = [root / photo.path for photos in dataset.splits.values() for photo in photos]
    assert sorted(files) == sorted(root.rglob("*.png"))


def test_classes_without_a_test_photo_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "own", {"cat": 9} | dict.fromkeys(("one", "two", "three", "four"), 1))
    said = "4 classes have no photo left to test on ('four', 'one', 'three', …)"
    assert opened(tmp_path / "own", 4, 1).warnings[-1] == said
    write_folder(tmp_path / "given/train", {"a": 4, "b": 4})
    write_folder(tmp_path / "given/test", {"a": 2})
    assert opened(tmp_path / "given", 4, 1).warnings == ("1 class has no photo left to test on ('b')",)


def test_photos_whose_format_is_not_read_are_told_of(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own", {"cat": 9, "dog": 9})
    for name in ("cat/b.HEIC", "dog/a.heic", "dog/.c.heic"):
        (root / name).touch()
    line = "left out 2 files whose format is not read (.heic), such as cat/b.HEIC; convert to JPEG"
    assert opened(root, 4, 1).warnings == (line,)
    for path in (root / "cat").glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"'cat'.*2 files.*\.heic"):
        opened(root, 4, 1)


def test_a_photo_in_two_classes_is_told_of(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own", {"cat": 9, "dog": 9})
    write_photo(root / "cat/copy.png", seed=0)
    assert opened(root, 4, 1).warnings == ()
    write_photo(root / "dog/copy.png", seed=0)
    line = f"1 photo lies in two classes, the first: {root / 'cat/00.png'} and {root / 'dog/copy.png'}; remove it from"
    assert opened(root, 4, 1).warnings == (f"{line} one of them",)


def test_the_seed_decides(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 20, "b": 20})
    assert opened(tmp_path, 8, 1) == opened(tmp_path, 8, 1)
    assert opened(tmp_path, 8, 1).photos("train") != opened(tmp_path, 8, 2).photos("train")


def test_all_shots_hold_out_a_fifth(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10, "b": 3})
    assert counts(opened(tmp_path, 0, 1)) == [(8, 0, 2), (2, 0, 1)]


def test_nested_hidden_and_loose_files(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2})
    write_photo(tmp_path / "a" / "deep" / "er" / "x.JPG".lower())
    write_photo(tmp_path / "a" / ".thumbs" / "y.png")
    write_photo(tmp_path / "a" / ".hidden.png")
    write_photo(tmp_path / ".git" / "z.png")
    write_photo(tmp_path / "loose.png")
    (tmp_path / "a" / "notes.txt").write_text("not a photo")
    dataset = opened(tmp_path, 16, 1)
    assert dataset.class_names == ("a",)
    assert len(dataset.photos("train")) + len(dataset.photos("test")) == 3
    assert "left out 1 photo directly in" in dataset.warnings[0]


def test_given_splits(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("valid", 2), ("test", 3)):
        write_folder(tmp_path / split, {"a": count, "b": count})
    dataset = opened(tmp_path, 4, 1)
    assert counts(dataset) == [(5, 2, 3), (5, 2, 3)]
    assert dataset.photos("val")[0].path == "valid/a/00.png"


def test_val_stands_in_for_test(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 2)):
        write_folder(tmp_path / split, {"a": count})
    dataset = opened(tmp_path, 4, 1)
    assert counts(dataset) == [(5, 0, 2)]
    assert dataset.warnings == ("no test split: accuracy is measured on the validation photos",)


def test_train_alone_is_held_out_from(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 10})
    assert counts(opened(tmp_path, 4, 1)) == [(4, 3, 3)]


@pytest.mark.parametrize(("other", "said"), [("raw", "'raw'; move it away"), ("Training", "merge them")])
def test_splits_beside_another_folder_are_not_taken_for_classes(tmp_path: Path, other: str, said: str) -> None:
    for split in ("train", "test", other):
        write_folder(tmp_path / split, {"cat": 2, "dog": 2})
    with pytest.raises(DataError, match=said):
        opened(tmp_path, 1, 1)


def test_a_split_beside_another_folder_is_not_taken_for_a_class(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "dog": 2})
    write_folder(tmp_path / "added", {"owl": 2, "yak": 2})
    with pytest.raises(DataError, match="holds the split train, and beside it 'added'; move it away"):
        opened(tmp_path, 1, 1)


@pytest.mark.parametrize("datasets", [("pets",), ("pets", "shop")])
def test_a_folder_one_level_too_high_is_refused(tmp_path: Path, datasets: tuple[str, ...]) -> None:
    for dataset in datasets:
        for split in ("train", "test"):
            write_folder(tmp_path / dataset / split, {"cat": 2, "dog": 2})
    with pytest.raises(DataError, match=r"one level too high, since .*pets holds test, train.*; give .*pets$"):
        opened(tmp_path, 1, 1)
    assert opened(tmp_path / "pets", 1, 1).class_names == ("cat", "dog")


def test_classes_that_may_lie_one_level_deeper_are_told_of(tmp_path: Path) -> None:
    root = link_photos(tmp_path / "own", [f"{c}/1.jpg" for c in ("cat/manx", "cat/tabby", "dog/collie", "dog/pug")])
    (warning,) = [w for w in opened(root, 1, 1).warnings if "the classes are" in w]
    assert "'cat', 'dog'" in warning
    assert warning.endswith(f"if those are the classes, give {root / 'cat'}")
    link_photos(root, ["owl/1.jpg"])
    assert not [w for w in opened(root, 1, 1).warnings if "the classes are" in w]


def test_a_class_called_train(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 6, "bus": 6})
    assert opened(tmp_path, 4, 1).class_names == ("bus", "train")


def test_a_class_without_a_photo(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2, "b": 0})
    (tmp_path / "b" / "readme.txt").write_text("photos to come")
    with pytest.raises(DataError, match=r"'b'.*\.jpeg"):
        opened(tmp_path, 4, 1)


def test_a_class_that_is_only_tested(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 2})
    write_folder(tmp_path / "test", {"a": 2, "b": 2})
    with pytest.raises(DataError, match="'b'"):
        opened(tmp_path, 4, 1)


def test_no_classes(tmp_path: Path) -> None:
    write_photo(tmp_path / "x.png")
    with pytest.raises(DataError, match="1 photos"):
        opened(tmp_path, 4, 1)
    with pytest.raises(DataError, match="no such"):
        opened(tmp_path / "none", 4, 1)


def test_as_a_target_all_photos_or_the_given_test_photos(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own", {"a": 5, "b": 1})
    whole = opened(root, 16, 1, target=True)
    assert (counts(whole), whole.warnings, whole.split_origin) == ([(0, 0, 5), (0, 0, 1)], (), "ours")
    given = tmp_path / "given"
    write_folder(given / "train", {"a": 4, "b": 4})
    write_folder(given / "test", {"a": 2})
    whole = opened(given, 16, 1, target=True)
    assert (counts(whole), whole.split_origin) == ([(0, 0, 2), (0, 0, 0)], "given")


def test_a_target_may_have_test_photos_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "test", {"a": 2, "b": 3})
    assert counts(opened(tmp_path, 16, 1, target=True)) == [(0, 0, 2), (0, 0, 3)]
    (tmp_path / "test/c").mkdir()
    with pytest.raises(DataError, match="'c'"):
        opened(tmp_path, 16, 1, target=True)


def test_where_the_split_comes_from(tmp_path: Path) -> None:
    assert opened(write_folder(tmp_path / "x", {"a": 5}), 2, 1).split_origin == "ours"
    for split in ("train", "test"):
        write_folder(tmp_path / "y" / split, {"a": 2})
    assert opened(tmp_path / "y", 2, 1).split_origin == "given"


def test_the_same_classes_in_several_folders(tmp_path: Path) -> None:
    pacs = link_photos(
        tmp_path / "pacs", [f"{d}/{c}/1.jpg" for d in ("photo", "sketch") for c in ("cat", "dog", "owl")]
    )
    link_photos(pacs, ["sketch/yak/1.jpg"])
    assert domains(pacs) == ("photo", "sketch")
    assert domain_name(pacs / "photo") == "pacs/photo"
    assert opened(pacs / "sketch", 1, 1).name == "pacs/sketch"
    assert (domain_name(tmp_path / "shop" / "train"), domain_name(tmp_path / "shop")) == ("shop", "shop")
    for target in (False, True):
        with pytest.raises(DataError, match=r"photo, sketch.*pacs.photo$"):
            opened(pacs, 1, 1, target=target)


@pytest.mark.parametrize(
    "names",
    [
        ["cat/1.jpg", "dog/1.jpg"],
        ["cat/2020/1.jpg", "cat/2021/1.jpg", "dog/2020/1.jpg", "dog/2021/1.jpg"],
        ["cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg", "dog/test/1.jpg"],
        ["cat/indoor/1.jpg", "cat/outdoor/1.jpg", "cat/1.jpg", "dog/indoor/1.jpg", "dog/outdoor/1.jpg"],
        ["cat/indoor/1.jpg", "cat/outdoor/1.jpg", "cat/1.webp", "dog/indoor/1.jpg", "dog/outdoor/1.jpg"],
        ["cat/tabby/1.jpg", "cat/manx/1.jpg", "dog/beagle/1.jpg", "dog/poodle/1.jpg"],
        ["photo/cat/1.jpg", "photo/dog/1.jpg"],
        [f"{c}/{kind}/1.jpg" for c, kinds in (("cat", "xyabc"), ("dog", "xydef")) for kind in kinds],
    ],
)
def test_folders_that_are_classes(tmp_path: Path, names: list[str]) -> None:
    root = link_photos(tmp_path / "own", names)
    assert domains(root) == ()
    assert opened(root, 1, 1).name == "own"


def test_many_folders_are_classes(tmp_path: Path) -> None:
    root = link_photos(tmp_path, [f"c{i}/{c}/1.jpg" for i in range(MOST_DOMAINS + 1) for c in ("x", "y")])
    assert domains(root) == ()
    assert domains(tmp_path / "none") == ()


@needs_shared
def test_pacs() -> None:
    assert domains(SHARED / "pacs") == ("cartoon", "photo", "sketch")
    dataset = opened(SHARED / "pacs/photo", target=True)
    assert (dataset.name, len(dataset.class_names), list(dataset.splits)) == ("pacs/photo", 7, ["test"])
    assert len(dataset.photos("test")) == 420
