"""The datasets that are known by name, with the splits that the field reports on.

A split file of KaiyangZhou/CoOp, ``split_zhou_….json``, holds ``train``, ``val`` and ``test``, each a list of ``[path,
label, class name]``. Where it is missing a split of our own is drawn, and the dataset's warnings say so. That is drawn
as in CoOp's code, with a generator that does not depend on a run's seed: datasets of class folders, and Flowers, are
split into half, a fifth and the rest of each class; elsewhere the test photos are those that the authors list, and a
fifth of each class of the others validates.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from sar_train.data import author_lists, imagenet
from sar_train.data.dataset import SPLITS, DataOptions, Dataset, Photo, Split
from sar_train.data.layouts import GUIDE, LAYOUTS, folder_of, missing_in
from sar_train.data.splits import split_photos
from sar_train.data.usable import without_missing
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
_Splits = dict[Split, list[Photo]]


def read_dataset(key: str, root: Path, options: DataOptions) -> Dataset:
    """Open a dataset by name.

    Args:
        key: of `LAYOUTS`.
        root: the folder that holds the dataset's folder, or that folder itself.
        options: with ``allow_missing``, classes without a training photo are left out. A target has the test photos of
            the published split, or all photos where the split would be ours.

    Raises:
        DataError: no folder, neither a split file nor the lists or folders that a split of our own is made from, a
            damaged list, or missing photos.
    """
    if missing := missing_in(root, key):
        raise DataError(missing)
    dataset = read_listing(key, folder_of(key, root), options)
    if options.target:
        dataset = replace(dataset, splits={"test": dataset.photos("test")})
    if key in imagenet.KEYS:
        return dataset  # its photos come from the folders themselves, so none can be missing
    return without_missing(dataset, allow_missing=options.allow_missing)


def read_listing(key: str, folder: Path, options: DataOptions) -> Dataset:
    """Return the classes and photos of a dataset by its lists or folders; the photos need not exist.

    Args:
        key: of `LAYOUTS`.
        folder: the dataset's own.
        options: as for `read_dataset`.

    Raises:
        DataError: a list is missing or damaged.
    """
    layout = LAYOUTS[key]
    warning, split_file = "", folder / layout.split_file
    try:
        if key in imagenet.KEYS:
            names, splits, warning = imagenet.read_imagenet(key, folder, options)
        elif key == "fgvc_aircraft":
            names, splits = author_lists.read_aircraft(folder)
        elif split_file.is_file():
            names, splits = read_split(split_file)
        else:
            names, splits, warning = _drawn_split(key, folder, options)
    except OSError as error:
        raise DataError(f"dataset {key}: {error.filename}: cannot be read ({error.strerror})") from None
    return Dataset(
        key,
        names,
        folder / layout.images,
        splits,
        layout.template,
        published_split=True,
        split_origin="ours" if layout.split_file and not split_file.is_file() else "published",
        warnings=(warning,) if warning else (),
    )


def read_split(path: Path) -> tuple[tuple[str, ...], _Splits]:
    """Return class names by label, and the photos by split, of a split file.

    Raises:
        DataError: not JSON of the expected form, a path that leaves the folder, labels with gaps, or a label with
            two names.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict) or any(not isinstance(content.get(split), list) for split in SPLITS):
        raise DataError(f"{path}: expected an object with the lists train, val and test")
    names: dict[int, str] = {}
    splits = {
        split: [_read_row(row, names, f"{path}: {split}[{i}]") for i, row in enumerate(content[split])]
        for split in SPLITS
    }
    trained = {photo.label for photo in splits["train"]}
    if not trained or trained != set(range(len(names))):
        raise DataError(
            f"{path}: expected training photos for labels 0 to C - 1, got {len(trained)} labels of {len(names)}"
        )
    return tuple(names[label] for label in range(len(names))), splits


def _read_row(row: Any, names: dict[int, str], line: str) -> Photo:
    if not isinstance(row, list) or [type(value) for value in row] != [str, int, str]:
        raise DataError(f"{line}: expected [path, label, class name], got {row!r:.80}")
    path, label, name = row
    if names.setdefault(label, name) != name:
        raise DataError(f"{line}: label {label} has two names, {names[label]!r} and {name!r}")
    return Photo(author_lists.below(path, line), label)


def _drawn_split(key: str, folder: Path, options: DataOptions) -> tuple[tuple[str, ...], _Splits, str]:
    """Return class names, photos by split, and the sentence that must be shown with every result.

    A target tests on all photos, or on those that the authors list.

    Raises:
        DataError: neither class folders nor the authors' lists are there, or they cannot be used.
    """
    layout = LAYOUTS[key]
    warning = f"dataset {key}: {layout.split_file} is not there, so this is our own split and not the published one"
    advice = f"; results cannot be compared with papers; get the file as {GUIDE} says"
    if key in author_lists.TRAINVAL_AND_TEST:
        names, photos, test = author_lists.TRAINVAL_AND_TEST[key](folder)
        warning += " (the test photos are those that its authors list)"
        if options.target:
            return names, {"test": test or photos}, warning + advice
        splits = split_photos(photos, lambda total: (total - round(0.2 * total), round(0.2 * total)), SEED)
        return names, {"train": [*splits["train"]], "val": [*splits["val"]], "test": test}, warning + advice
    is_flowers = key == "oxford_flowers"
    names, photos = author_lists.flowers(folder) if is_flowers else class_folders(key, folder / layout.images)
    if len(names) != layout.classes and not options.allow_missing:
        raise DataError(
            f"{folder / layout.images}: expected {layout.classes} classes, got {len(names)}; complete the download, or "
            "go on without them with --allow-missing"
        )
    if options.target:
        return names, {"test": photos}, f"{warning} (all photos are tested on){advice}"
    splits = split_photos(photos, lambda total: (max(1, round(0.5 * total)), round(0.2 * total)), SEED)
    return names, {split: [*chosen] for split, chosen in splits.items()}, warning + advice


def class_folders(key: str, images: Path) -> tuple[tuple[str, ...], list[Photo]]:
    """Return names and photos of a dataset with one folder for each class, in sorted order.

    Raises:
        DataError: there is no such folder, or nothing in it.
    """
    if not images.is_dir():
        raise DataError(f"dataset {key}: expected the folder {images}, not there; see {GUIDE}")
    with os.scandir(images) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
    folders = [name for name in folders if name not in IGNORED.get(key, ())]
    photos: list[Photo] = []
    for label, name in enumerate(folders):
        files = imagenet.photo_names(images / name)
        if not files:
            raise DataError(f"{images / name}: no photo in it; complete the download")
        photos += [Photo(f"{name}/{file}", label) for file in files]
    if not photos:
        raise DataError(f"{images}: expected one folder per class, got none; complete the download")
    fixes = NAME_FIXES.get(key, {})
    return tuple(fixes.get(name, name) for name in folders), photos
