"""The table of datasets that are known by name, and telling which one a folder is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.coop import link_photos, write_split

from sar_train.clip.prompts import split_template
from sar_train.data.layouts import LAYOUTS, find, is_there

CONTENT = {"train": [["a/1.jpg", 0, "a"]], "val": [], "test": []}


def test_datasets_have_the_published_classes_and_coops_templates() -> None:
    assert {key: layout.classes for key, layout in LAYOUTS.items()} == {
        "imagenet": 1000, "caltech101": 100, "oxford_pets": 37, "stanford_cars": 196, "oxford_flowers": 102,
        "food101": 101, "fgvc_aircraft": 100, "sun397": 397, "dtd": 47, "eurosat": 10, "ucf101": 101,
        "imagenetv2": 1000, "imagenet_sketch": 1000, "imagenet_a": 200, "imagenet_r": 200,
    }  # fmt: skip
    assert LAYOUTS["sun397"].counts == (15880, 3970, 19850)
    for key, layout in LAYOUTS.items():
        split_template(layout.template)
        assert (layout.counts[0] == 0) == (key in ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"))
        if key.startswith("imagenet"):
            assert layout.template == "a photo of a {}."
    assert LAYOUTS["fgvc_aircraft"].template == "a photo of a {}, a type of aircraft."
    assert LAYOUTS["food101"].template == "a photo of {}, a type of food."
    assert LAYOUTS["dtd"].template == "{} texture."


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
