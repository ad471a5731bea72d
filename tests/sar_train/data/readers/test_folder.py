"""Folders of class folders: what counts as a class, a split, a domain, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.coop import link_photos
from support.opened import counts, opened
from support.photos import write_folder, write_photo

from sar_train.data.readers.folder import MOST_DOMAINS, domain_name, domains
from sar_train.errors import DataError


def test_shots_and_the_rest(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", {"tabby_cat": 12, "dog": 5, "fish": 4, "owl": 1})
    dataset = opened(root, 4, 1)
    assert dataset.class_names == ("dog", "fish", "owl", "tabby_cat")
    assert counts(dataset) == [(4, 0, 1), (3, 0, 1), (1, 0, 0), (4, 4, 4)]
    assert dataset.warnings == (
        "1 class has fewer than 4 photos to learn from (the fewest: 1)",
        "1 class has no photo left to test on ('owl')",
    )
    files = [root / photo.path for photos in dataset.splits.values() for photo in photos]
    assert sorted(files) == sorted(root.rglob("*.png"))
    assert counts(opened(root, 0, 1)) == [(4, 0, 1), (3, 0, 1), (1, 0, 0), (10, 0, 2)]


def test_photos_whose_format_is_not_read_are_told_of(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own", {"cat": 9, "dog": 9})
    for name in ("cat/b.JXL", "dog/a.jxl", "dog/.c.jxl"):
        (root / name).touch()
    line = "left out 2 files whose format is not read (.jxl), such as cat/b.JXL; convert to JPEG"
    assert opened(root, 4, 1).warnings == (line,)
    for path in (root / "cat").glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"'cat'.*2 files.*\.jxl"):
        opened(root, 4, 1)


def test_a_photo_in_two_classes_is_told_of(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own", {"cat": 9, "dog": 9})
    write_photo(root / "cat/copy.png", seed=0)
    assert opened(root, 4, 1).warnings == ()
    write_photo(root / "dog/copy.png", seed=0)
    line = f"1 photo lies in two classes, the first: {root / 'cat/00.png'} and {root / 'dog/copy.png'}; remove it from"
    assert opened(root, 4, 1).warnings == (f"{line} one of them",)


def test_nested_hidden_and_loose_files(tmp_path: Path) -> None:
    photos = ["a/1.jpg", "a/2.jpg", "a/deep/er/3.jpg", "a/.thumbs/y.jpg", "a/.hidden.jpg", ".git/z.jpg", "loose.jpg"]
    link_photos(tmp_path, [*photos, "__MACOSX/a/1.jpg"])
    (tmp_path / "a" / "notes.txt").write_text("not a photo")
    (tmp_path / "loop").symlink_to("loop")
    dataset = opened(tmp_path, 16, 1)
    assert dataset.class_names == ("a",)
    assert {photo.path for split in dataset.splits.values() for photo in split} == set(photos[:3])
    assert "left out 1 photo directly in" in dataset.warnings[0]


def test_train_alone_is_a_split_and_beside_another_folder_a_class(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 10})
    assert counts(opened(tmp_path, 4, 1)) == [(4, 3, 3)]
    write_folder(tmp_path, {"bus": 6})
    assert opened(tmp_path, 4, 1).class_names == ("bus", "train")


@pytest.mark.parametrize(
    ("photos", "fact"),
    [
        (["x.jpg"], "expected one folder per class, got 1 photos and no folders"),
        (["a/1.jpg", "b/notes.txt"], r"class 'b' has no usable photo .*\.jpeg"),
        (["train/a/1.jpg", "test/a/1.jpg", "test/b/1.jpg"], "class 'b' has no usable photo"),
        (["train/a/1.jpg", "test/a/1.jpg", "raw/a/1.jpg"], "contains the splits .*'raw'; move it away"),
        (["train/a/1.jpg", "test/a/1.jpg", "Training/a/1.jpg"], "merge them"),
        (["train/cat/1.jpg", "train/dog/1.jpg", "added/owl/1.jpg"], "contains the split train, and next to it 'added'"),
        (
            ["pets/train/cat/1.jpg", "pets/train/dog/1.jpg", "pets/test/cat/1.jpg", "pets/test/dog/1.jpg"],
            "one level too high, since .*pets contains test, train.*; give .*pets$",
        ),
        (
            [f"{d}/{c}/1.jpg" for d in ("photo", "sketch") for c in ("cat", "dog", "owl")],
            "same classes in each of photo, sketch.*such as .*photo$",
        ),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, photos: list[str], fact: str) -> None:
    link_photos(tmp_path, photos)
    with pytest.raises(DataError, match=fact):
        opened(tmp_path, 1, 1)


def test_classes_that_may_lie_one_level_deeper_are_told_of(tmp_path: Path) -> None:
    root = link_photos(tmp_path / "own", [f"{c}/1.jpg" for c in ("cat/manx", "cat/tabby", "dog/collie", "dog/pug")])
    (warning,) = [w for w in opened(root, 1, 1).warnings if "the classes are" in w]
    assert "'cat', 'dog'" in warning
    assert warning.endswith(f"if those are the classes, give {root / 'cat'}")
    link_photos(root, ["owl/1.jpg"])
    assert not [w for w in opened(root, 1, 1).warnings if "the classes are" in w]


def test_domains_and_the_names_of_datasets(tmp_path: Path) -> None:
    pacs = link_photos(
        tmp_path / "pacs", [f"{d}/{c}/1.jpg" for d in ("photo", "sketch") for c in ("cat", "dog", "owl")]
    )
    link_photos(pacs, ["sketch/yak/1.jpg"])
    assert domains(pacs) == ("photo", "sketch")
    assert domain_name(pacs / "photo") == opened(pacs / "photo", 1, 1).name == "pacs/photo"
    shop = link_photos(tmp_path / "shop", [f"{s}/{c}/1.jpg" for s in ("train", "test") for c in ("cat", "dog")])
    assert (domain_name(shop / "train"), domain_name(shop), domains(shop)) == ("shop", "shop", ())


@pytest.mark.parametrize(
    "names",
    [
        ["cat/1.jpg", "dog/1.jpg"],
        ["cat/2020/1.jpg", "cat/2021/1.jpg", "dog/2020/1.jpg", "dog/2021/1.jpg"],
        ["cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg", "dog/test/1.jpg"],
        ["cat/indoor/1.jpg", "cat/outdoor/1.jpg", "cat/1.webp", "dog/indoor/1.jpg", "dog/outdoor/1.jpg"],
        ["cat/tabby/1.jpg", "cat/manx/1.jpg", "dog/beagle/1.jpg", "dog/poodle/1.jpg"],
        ["photo/cat/1.jpg", "photo/dog/1.jpg"],
        [f"{c}/{kind}/1.jpg" for c, kinds in (("cat", "xyabc"), ("dog", "xydef")) for kind in kinds],
        [f"c{i}/{c}/1.jpg" for i in range(MOST_DOMAINS + 1) for c in ("x", "y")],
    ],
)
def test_folders_that_are_classes(tmp_path: Path, names: list[str]) -> None:
    root = link_photos(tmp_path / "own", names)
    assert domains(root) == ()
    assert opened(root, 1, 1).name == "own"
