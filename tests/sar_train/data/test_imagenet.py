"""ImageNet and its four variants: told apart by WordNet id, sorted, and refused in one line where they are wrong."""

from pathlib import Path

import pytest
from support.coop import IDS, link_photos, write_class_names, write_imagenet
from support.opened import opened

from sar_train.data.imagenet import names_file, problems, read_names
from sar_train.data.splits import base_new
from sar_train.errors import DataError


def test_imagenet(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    dataset = opened("ImageNet", data_root=tmp_path)
    assert len(dataset.class_names) == 1000
    assert [len(part) for part in base_new(range(1000))] == [500, 500]
    assert dataset.class_names[:2] == ("thing 1", "thing 2")
    assert dataset.class_names[19] == dataset.class_names[29] == "missile"
    assert (len(dataset.photos("train")), len(dataset.photos("val")), len(dataset.photos("test"))) == (2000, 0, 1000)
    assert [p.label for p in dataset.photos("test")] == list(range(1000))
    assert dataset.photos("train")[40].path == "train/n00000021/n00000021_0.JPEG"
    assert dataset.photos("train")[40].label == 20
    assert (dataset.published_split, dataset.split_origin, dataset.warnings) == (True, "published", ())


def test_imagenet_as_a_target_needs_only_val(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path)
    (folder / "images/train").rename(folder / "away")
    dataset = opened("imagenet", data_root=tmp_path, target=True)
    assert (len(dataset.photos("train")), len(dataset.photos("val")), len(dataset.photos("test"))) == (0, 0, 1000)


def test_a_flat_val_is_told_with_the_way_to_mend_it(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path, val=0)
    link_photos(folder / "images/val", [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 6)])
    with pytest.raises(DataError, match=r"val: 5 photos.*valprep\.sh"):
        opened("imagenet", data_root=tmp_path)
    (folder / "classnames.txt").unlink()
    assert [text.split(":")[0][-8:] for text in problems("imagenet", folder)] == ["imagenet", "ages/val"]


def test_missing_class_folders(tmp_path: Path) -> None:
    write_imagenet(tmp_path, ids=[wnid for wnid in IDS if wnid not in ("n00000003", "n00000007")])
    with pytest.raises(DataError, match="998 .*n00000003"):
        opened("imagenet", data_root=tmp_path)
    dataset = opened("imagenet", data_root=tmp_path, allow_missing=True)
    assert dataset.class_names[:4] == ("thing 1", "thing 2", "thing 4", "thing 5")
    assert dataset.warnings == ("dataset imagenet: expected 1000 class folders, got 998; went on with those",)
    assert {p.label for p in dataset.photos("test")} == set(range(998))


def test_a_class_folder_that_is_no_class(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path)
    (folder / "images/val/n99999999").mkdir()
    with pytest.raises(DataError, match="n99999999"):
        opened("imagenet", data_root=tmp_path)


def test_v2_counts_lines(tmp_path: Path) -> None:
    folder = write_class_names(tmp_path / "imagenetv2")
    photos = [f"{k}/{k}x.jpeg" for k in range(1000)]
    link_photos(folder / "imagenetv2-matched-frequency-format-val", photos)
    dataset = opened("imagenetv2", data_root=tmp_path, target=True)
    assert [p.label for p in dataset.photos("test")] == list(range(1000))
    assert dataset.photos("test")[10].path == "10/10x.jpeg"  # the 11th line, not what sorting "10" gives
    assert dataset.class_names[10] == "thing 11"


@pytest.mark.parametrize(
    ("key", "images"),
    [("imagenet_a", "imagenet-adversarial/imagenet-a"), ("imagenet_r", "imagenet-rendition/imagenet-r")],
)
def test_two_hundred_classes_named_by_imagenets_list(tmp_path: Path, key: str, images: str) -> None:
    write_class_names(tmp_path / "imagenet")
    link_photos(tmp_path / images, [f"{wnid}/0.jpg" for wnid in reversed(IDS[::5])])
    (tmp_path / images / "README.txt").write_text("not a class")
    dataset = opened(key, data_root=tmp_path, target=True)
    assert dataset.class_names[:3] == ("thing 1", "thing 6", "thing 11")
    assert len(dataset.class_names) == len(dataset.photos("test")) == 200
    assert dataset.photos("train") == dataset.photos("val") == ()
    (tmp_path / images / IDS[1]).mkdir()
    with pytest.raises(DataError, match="200 .*201"):
        opened(key, data_root=tmp_path, target=True)


def test_sketch_has_a_list_of_its_own(tmp_path: Path) -> None:
    folder = write_class_names(tmp_path / "imagenet-sketch")
    link_photos(folder / "images", [f"{wnid}/sketch_0.JPEG" for wnid in IDS])
    assert names_file(folder) == folder / "classnames.txt"
    assert len(opened("ImageNet-Sketch", data_root=tmp_path, target=True).photos("test")) == 1000


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("tench\n", "line 1: .*'tench'"),
        ("n00000001 a\nn00000001 b\n", "line 2: n00000001"),
        ("\n".join(f"{wnid} x" for wnid in IDS[:998]), "got 998"),
        ("\n".join(f"{wnid} x" for wnid in reversed(IDS)), "not sorted"),
        ("", "got 0"),
    ],
)
def test_bad_names(tmp_path: Path, text: str, fact: str) -> None:
    path = tmp_path / "classnames.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=fact):
        read_names(path)


def test_names_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "imagenet-sketch").mkdir()
    with pytest.raises(DataError, match="classnames.txt"):
        names_file(tmp_path / "imagenet-sketch")
    (tmp_path / "classnames.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="UTF-8"):
        read_names(tmp_path / "classnames.txt")
