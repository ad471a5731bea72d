"""Splits drawn here, where the published split file is missing: not those of papers, and said so.

As CoOp's code does, with a generator of its own that no run's seed touches: half, a fifth and the rest of each class
for datasets that are class folders, and for Flowers; elsewhere the test photos are those that the dataset's authors
list, and a fifth of each class of the others validates.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from sar_infer.images.formats import has_image_suffix
from sar_train.data.author_lists import TRAINVAL_AND_TEST, Listed, flowers
from sar_train.data.layouts import GUIDE, LAYOUTS
from sar_train.data.photos import SPLITS
from sar_train.data.split_cache import SplitCache
from sar_train.data.split_file import Rows
from sar_train.errors import DataError

SEED = 1
NAME_FIXES: dict[str, dict[str, str]] = {
    "caltech101": {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"},
    "eurosat": {
        "AnnualCrop": "Annual Crop Land",
        "Forest": "Forest",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "River": "River",
        "SeaLake": "Sea or Lake",
    },
}
IGNORED = {"caltech101": frozenset(("BACKGROUND_Google", "Faces_easy"))}


def own_split(
    key: str, folder: Path, cache_dir: Path | None = None, *, whole: bool = False, allow_missing: bool = False
) -> tuple[tuple[str, ...], Rows, str]:
    """Class names, (path, label) by split, and the sentence that must be shown with every result.

    Args:
        key: of `LAYOUTS`, a dataset that has a published split file.
        folder: the dataset's folder.
        cache_dir: where the split is kept between runs.
        whole: the photos are to be judged on alone: all are test photos, but where the authors list the test photos.
        allow_missing: go on with fewer class folders than the dataset has.

    Raises:
        DataError: neither class folders nor the authors' lists are there, or they cannot be used.
    """
    layout = LAYOUTS[key]
    said = f"dataset {key}: {layout.split_file} is not there, so this is our own split and not the published one"
    advice = f"results cannot be compared with papers; get the file as {GUIDE} says"
    if key in TRAINVAL_AND_TEST:
        names, pool, test = TRAINVAL_AND_TEST[key](folder)
        shares, said = (0.8, 0.2), f"{said} (the test photos are those that its authors list)"
    else:
        names, pool = flowers(folder) if key == "oxford_flowers" else class_folders(key, folder / layout.images)
        test, shares = [], (0.5, 0.2)
        said = f"{said}{' (all photos are tested on)' if whole else ''}"
    if len(names) != layout.classes and key not in TRAINVAL_AND_TEST and not allow_missing:
        raise DataError(
            f"{folder / layout.images}: expected {layout.classes} classes, got {len(names)}; complete the download, or "
            "go on without them with --allow-missing"
        )
    if whole:
        return names, {"train": [], "val": [], "test": test or pool}, f"{said}; {advice}"
    cache = SplitCache(cache_dir, key, folder, [f"{path}\0{names[label]}" for path, label in pool])
    labels = dict(pool)
    paths = cache.split("split.json", lambda: _draw(pool, shares))
    rows: Rows = {split: [(path, labels[path]) for path in paths[split]] for split in SPLITS}
    return names, {**rows, "test": test or rows["test"]}, f"{said}; {advice}"


def class_folders(key: str, images: Path) -> tuple[tuple[str, ...], Listed]:
    """Names and photos of a dataset that is one folder a class, in sorted order.

    Raises:
        DataError: there is no such folder, or nothing in it.
    """
    if not images.is_dir():
        raise DataError(f"dataset {key}: expected the folder {images}, not there; see {GUIDE}")
    with os.scandir(images) as entries:
        found = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    folders = [name for name in found if name not in IGNORED.get(key, ())]
    pool: Listed = []
    for label, name in enumerate(folders):
        with os.scandir(images / name) as entries:
            photos = sorted(e.name for e in entries if has_image_suffix(e.name) and e.name[0] != ".")
        if not photos:
            raise DataError(f"{images / name}: no photo in it; complete the download")
        pool += [(f"{name}/{photo}", label) for photo in photos]
    if not pool:
        raise DataError(f"{images}: expected one folder per class, got none; complete the download")
    fixes = NAME_FIXES.get(key, {})
    return tuple(fixes.get(name, name) for name in folders), pool


def _draw(pool: Listed, shares: tuple[float, float]) -> dict[str, list[str]]:
    """Paths by split: of each class the shares that train and validate, and the rest, if there is any."""
    rng = random.Random(SEED)
    drawn: dict[str, list[str]] = {split: [] for split in SPLITS}
    by_label: dict[int, list[str]] = {}
    for path, label in pool:
        by_label.setdefault(label, []).append(path)
    for label in sorted(by_label):
        paths = by_label[label]
        rng.shuffle(paths)
        val = round(len(paths) * shares[1])
        train = len(paths) - val if sum(shares) == 1 else max(1, round(len(paths) * shares[0]))
        for split, part in zip(SPLITS, (paths[:train], paths[train : train + val], paths[train + val :]), strict=True):
            drawn[split] += sorted(part)
    return drawn
