"""ImageNet and its four variants: told apart by WordNet id, sorted, and refused in one line where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.coop import IDS, link_photos, write_class_names, write_imagenet
from support.opened import opened

from sar_train.errors import DataError


def test_imagenet(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path)
    dataset = opened("ImageNet", data_root=tmp_path)
    assert dataset.class_names == (*(name.partition(" ")[2] for name in _names(folder)),)
    assert dataset.class_names[19] == dataset.class_names[29] == "missile"
    assert [len(dataset.photos(split)) for split in ("train", "val", "test")] == [2000, 0, 1000]
    assert [photo.label for photo in dataset.photos("test")] == list(range(1000))
    assert dataset.photos("train")[40] == ("train/n00000021/n00000021_0.JPEG", 20)
    assert (dataset.published_split, dataset.split_origin, dataset.warnings) == (True, "published", ())
    (folder / "images/train").rename(folder / "away")
    assert opened(folder, target=True).splits == {"test": dataset.photos("test")}


def _names(folder: Path) -> list[str]:
    return (folder / "classnames.txt").read_text().splitlines()


def test_missing_class_folders(tmp_path: Path) -> None:
    write_imagenet(tmp_path, ids=[wnid for wnid in IDS if wnid not in ("n00000003", "n00000007")])
    with pytest.raises(DataError, match="998 .*n00000003"):
        opened("imagenet", data_root=tmp_path)
    dataset = opened("imagenet", data_root=tmp_path, allow_missing=True)
    assert dataset.class_names[:4] == ("thing 1", "thing 2", "thing 4", "thing 5")
    assert dataset.warnings == ("dataset imagenet: expected 1000 class folders, got 998; went on with those",)
    assert {photo.label for photo in dataset.photos("test")} == set(range(998))
    (tmp_path / "imagenet/images/val/n99999999").mkdir()
    with pytest.raises(DataError, match="n99999999"):
        opened("imagenet", data_root=tmp_path, allow_missing=True)


def test_a_flat_val_is_told_with_the_way_to_mend_it(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path, val=0)
    link_photos(folder / "images/val", [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 6)])
    with pytest.raises(DataError, match=r"val: 5 photos.*valprep\.sh"):
        opened("imagenet", data_root=tmp_path)


@pytest.mark.parametrize(
    ("key", "images", "ids"),
    [
        ("imagenetv2", "imagenetv2/imagenetv2-matched-frequency-format-val", [str(label) for label in range(1000)]),
        ("imagenet_sketch", "imagenet-sketch/images", IDS),
        ("imagenet_a", "imagenet-adversarial/imagenet-a", IDS[::5]),
        ("imagenet_r", "imagenet-rendition/imagenet-r", IDS[::5]),
    ],
)
def test_variants_are_targets_named_by_imagenets_list(tmp_path: Path, key: str, images: str, ids: list[str]) -> None:
    write_class_names(tmp_path / "imagenet")
    link_photos(tmp_path / images, [f"{wnid}/{wnid}x.jpeg" for wnid in reversed(ids)])
    (tmp_path / images / "README.txt").write_text("not a class")
    dataset = opened(key, data_root=tmp_path, target=True)
    assert dataset.splits == {"test": [(f"{wnid}/{wnid}x.jpeg", label) for label, wnid in enumerate(ids)]}
    assert (dataset.class_names[0], dataset.class_names[10]) == ("thing 1", f"thing {10 * (1000 // len(ids)) + 1}")
    for spec in (key, str(tmp_path / images.split("/", maxsplit=1)[0])):
        with pytest.raises(DataError, match=f"{key}.*only test photos"):
            opened(spec, data_root=tmp_path if spec == key else None)
    if len(ids) < 1000:
        (tmp_path / images / IDS[1]).mkdir()
        with pytest.raises(DataError, match="200 .*201"):
            opened(key, data_root=tmp_path, target=True)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("tench\n", "line 1: .*'tench'"),
        ("n00000001 a\nn00000001 b\n", "line 2: n00000001"),
        ("\n".join(f"{wnid} x" for wnid in IDS[:998]), "got 998"),
        ("\n".join(f"{wnid} x" for wnid in reversed(IDS)), "not sorted"),
        ("", "got 0"),
        ("\udcff", "UTF-8"),
        (None, "expected classnames.txt in it or in imagenet/ next to it"),
    ],
)
def test_damaged_names(tmp_path: Path, text: str | None, fact: str) -> None:
    link_photos(tmp_path / "imagenet-sketch/images", [f"{IDS[0]}/1.jpg"])
    if text is not None:
        (tmp_path / "imagenet-sketch/classnames.txt").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=fact):
        opened("imagenet-sketch", data_root=tmp_path, target=True)
