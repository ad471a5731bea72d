"""The datasets that are known by name, in the layout of KaiyangZhou/CoOp's DATASETS.md.

Datasets with a split file differ in nothing but this table. Templates are those of CoOp's zero-shot CLIP; counts are
those of the published splits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sar_train.data.dataset import TEMPLATE

GUIDE = "CoOp's DATASETS.md (github.com/KaiyangZhou/CoOp)"
"""Where each dataset's download and split file are described."""


@dataclass(frozen=True)
class Layout:
    """One dataset.

    Attributes:
        folder: its folder below the root.
        images: the folder of its images below that; may be empty.
        split_file: the published split; empty where the dataset's own lists or folders are the split.
        template: hand-crafted prompt with ``{}``.
        classes: how many.
        counts: images in train, val and test.
        aliases: its other names.
    """

    folder: str
    images: str
    split_file: str
    template: str
    classes: int
    counts: tuple[int, int, int]
    aliases: tuple[str, ...] = ()


def _zhou(name: str) -> str:
    return f"split_zhou_{name}.json"


LAYOUTS: dict[str, Layout] = {
    "imagenet": Layout("imagenet", "images", "", TEMPLATE, 1000, (1281167, 0, 50000)),
    "caltech101": Layout(
        "caltech-101", "101_ObjectCategories", _zhou("Caltech101"), TEMPLATE, 100, (4128, 1649, 2465), ("caltech-101",)
    ),
    "oxford_pets": Layout(
        "oxford_pets", "images", _zhou("OxfordPets"), "a photo of a {}, a type of pet.", 37, (2944, 736, 3669),
        ("pets",),
    ),
    "stanford_cars": Layout(
        "stanford_cars", "", _zhou("StanfordCars"), TEMPLATE, 196, (6509, 1635, 8041), ("cars",)
    ),
    "oxford_flowers": Layout(
        "oxford_flowers", "jpg", _zhou("OxfordFlowers"), "a photo of a {}, a type of flower.", 102, (4093, 1633, 2463),
        ("flowers102", "flowers"),
    ),
    "food101": Layout(
        "food-101", "images", _zhou("Food101"), "a photo of {}, a type of food.", 101, (50500, 20200, 30300)
    ),
    "fgvc_aircraft": Layout(
        "fgvc_aircraft", "images", "", "a photo of a {}, a type of aircraft.", 100, (3334, 3333, 3333), ("aircraft",)
    ),
    "sun397": Layout("sun397", "SUN397", _zhou("SUN397"), TEMPLATE, 397, (15880, 3970, 19850)),
    "dtd": Layout(
        "dtd", "images", _zhou("DescribableTextures"), "{} texture.", 47, (2820, 1128, 1692), ("describabletextures",)
    ),
    "eurosat": Layout(
        "eurosat", "2750", _zhou("EuroSAT"), "a centered satellite photo of {}.", 10, (13500, 5400, 8100)
    ),
    "ucf101": Layout(
        "ucf101", "UCF-101-midframes", _zhou("UCF101"), "a photo of a person doing {}.", 101, (7639, 1898, 3783)
    ),
    "imagenetv2": Layout(
        "imagenetv2", "imagenetv2-matched-frequency-format-val", "", TEMPLATE, 1000, (0, 0, 10000)
    ),
    "imagenet_sketch": Layout("imagenet-sketch", "images", "", TEMPLATE, 1000, (0, 0, 50889)),
    "imagenet_a": Layout(
        "imagenet-adversarial", "imagenet-a", "", TEMPLATE, 200, (0, 0, 7500), ("imagenet_adversarial",)
    ),
    "imagenet_r": Layout("imagenet-rendition", "imagenet-r", "", TEMPLATE, 200, (0, 0, 30000), ("imagenet_rendition",)),
}  # fmt: skip


def find(name: str) -> str | None:
    """Return the table's key for a name, case and punctuation aside; None if the name is unknown."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    names = {plain(alias): key for key, layout in LAYOUTS.items() for alias in (key, *layout.aliases)}
    return names.get(plain(name))


def dataset_in(folder: Path) -> str | None:
    """Return the dataset that a folder is, by its split file or by its name and that of the folder of images in it."""
    by_split = (key for key, x in LAYOUTS.items() if x.split_file and (folder / x.split_file).is_file())
    name = folder.resolve().name
    by_name = (key for key, x in LAYOUTS.items() if x.folder == name and (folder / (x.images or "cars_train")).is_dir())
    return next(by_split, None) or next(by_name, None)


def folder_of(key: str, root: Path) -> Path:
    """Return a dataset's folder: below ``root``, or ``root`` itself where there is none below it."""
    below = root / LAYOUTS[key].folder
    return below if below.is_dir() else root


def is_there(key: str, root: Path) -> bool:
    """Return True if ``root`` holds or is a dataset: it has its split file or folder of images, and not another's."""
    layout, folder = LAYOUTS[key], folder_of(key, root)
    if folder == root and dataset_in(root) not in (None, key):
        return False
    has_split = bool(layout.split_file) and (folder / layout.split_file).is_file()
    return has_split or (folder / (layout.images or "cars_train")).is_dir()


def missing_in(root: Path, key: str) -> str:
    """Return a message that says which file or folder of a dataset ``root`` lacks; an empty text if none."""
    layout, folder = LAYOUTS[key], folder_of(key, root)
    if not is_there(key, root):
        return (
            f"dataset {key}: expected {layout.split_file or layout.images} in {root / layout.folder}, not there; "
            "get it as CoOp's DATASETS.md says, or pass the folder above it as --data-root"
        )
    if not (folder / layout.images).is_dir():
        return f"dataset {key}: expected the folder {folder / layout.images}, not there; complete the download"
    return ""
