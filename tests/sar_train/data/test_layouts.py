"""The table of datasets that are known by name, and telling which one a folder is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.coop import link_photos, write_split

from sar_train.data.layouts import find, is_there

CONTENT = {"train": [["a/1.jpg", 0, "a"]], "val": [], "test": []}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ImageNet-A", "imagenet_a"), ("imagenet-adversarial", "imagenet_a"), ("ImageNetR", "imagenet_r"),
        ("ImageNet-Sketch", "imagenet_sketch"), ("ImageNetV2", "imagenetv2"), ("FGVCAircraft", "fgvc_aircraft"),
        ("Flowers102", "oxford_flowers"), ("DescribableTextures", "dtd"), ("Oxford-Pets", "oxford_pets"),
        ("pets", "oxford_pets"), ("nothing", None),
    ],
)  # fmt: skip
def test_names_are_forgiving(name: str, key: str | None) -> None:
    assert find(name) == key


def test_photos_of_another_dataset_are_not_taken_for_it(tmp_path: Path) -> None:
    dtd = write_split(tmp_path / "dtd", "dtd", CONTENT)
    assert is_there("dtd", tmp_path)
    assert is_there("dtd", dtd)
    assert not is_there("food101", dtd)  # which keeps its photos in images/ too
    (tmp_path / "food-101").mkdir()
    assert not is_there("food101", tmp_path)
    link_photos(tmp_path / "stanford_cars/cars_train", ["1.jpg"])
    assert is_there("stanford_cars", tmp_path)
