"""Datasets laid out as KaiyangZhou/CoOp's DATASETS.md says, with the splits that the field reports on.

A split file is one JSON object with ``train``, ``val`` and ``test``, each a list of ``[path, label, class name]``, with
paths relative to the folder of the images. The table below is all that differs between datasets; the templates are
those of CoOp's zero-shot CLIP.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sar_train.data.photos import SPLITS, Photo, PhotoDataset, Split
from sar_train.errors import DataError


@dataclass(frozen=True)
class Layout:
    """Where a dataset's parts lie below ``root/folder``; ``images`` may be empty. ``aliases`` are its other names."""

    folder: str
    images: str
    split_file: str
    template: str
    aliases: tuple[str, ...] = ()


LAYOUTS: dict[str, Layout] = {
    "caltech101": Layout("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json", "a photo of a {}."),
    "oxford_pets": Layout(
        "oxford_pets", "images", "split_zhou_OxfordPets.json", "a photo of a {}, a type of pet.", ("pets",)
    ),
    "oxford_flowers": Layout(
        "oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", "a photo of a {}, a type of flower.", ("flowers102",)
    ),
    "food101": Layout("food-101", "images", "split_zhou_Food101.json", "a photo of {}, a type of food."),
    "dtd": Layout("dtd", "images", "split_zhou_DescribableTextures.json", "{} texture.", ("describabletextures",)),
    "eurosat": Layout("eurosat", "2750", "split_zhou_EuroSAT.json", "a centered satellite photo of {}."),
    "stanford_cars": Layout("stanford_cars", "", "split_zhou_StanfordCars.json", "a photo of a {}.", ("cars",)),
    "sun397": Layout("sun397", "SUN397", "split_zhou_SUN397.json", "a photo of a {}."),
    "ucf101": Layout("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", "a photo of a person doing {}."),
}


def find(name: str) -> str | None:
    """The table's key for a name, case and punctuation aside; None when there is none."""
    known = {_plain(alias): key for key, layout in LAYOUTS.items() for alias in (key, *layout.aliases)}
    return known.get(_plain(name))


def layout_in(folder: Path) -> str | None:
    """The dataset whose split file lies in a folder, None when none does."""
    return next((key for key, layout in LAYOUTS.items() if (folder / layout.split_file).is_file()), None)


def load_dataset(name: str, root: Path, *, allow_missing: bool = False) -> PhotoDataset:
    """Open a dataset by name.

    Args:
        name: such as ``caltech101``; case, hyphens and underscores do not matter.
        root: the folder that holds the dataset's folder, or that folder itself.
        allow_missing: go on with the photos that exist; classes without a training photo are left out.

    Raises:
        DataError: unknown name (the nearest are offered), no split file, a damaged split file, missing photos.
    """
    key = find(name)
    if key is None:
        near = difflib.get_close_matches(name.lower(), LAYOUTS, n=3, cutoff=0.4)
        raise DataError(f"unknown dataset {name!r}; did you mean {' or '.join(near or LAYOUTS)}?")
    layout = LAYOUTS[key]
    folder = root / layout.folder if (root / layout.folder).is_dir() else root
    split_file = folder / layout.split_file
    if not split_file.is_file():
        raise DataError(
            f"dataset {key}: expected {layout.split_file} in {root / layout.folder}, not there; "
            "get it as CoOp's DATASETS.md says, or pass the folder above it as --data-root"
        )
    class_names, rows = read_split(split_file)
    images = folder / layout.images
    train, val, test = (tuple(Photo(images / path, label) for path, label in rows[split]) for split in SPLITS)
    dataset = PhotoDataset(key, class_names, layout.template, images, train, val, test, published_split=True)
    return _without_missing(dataset, allow_missing=allow_missing)


def read_split(path: Path) -> tuple[tuple[str, ...], dict[Split, list[tuple[str, int]]]]:
    """Class names by label, and (relative path, label) of every photo by split.

    Raises:
        DataError: not JSON of the expected form, a path that leaves the folder, labels with gaps, or a label with
            two names.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict) or any(not isinstance(content.get(split), list) for split in SPLITS):
        raise DataError(f"{path}: expected an object with the lists train, val and test")
    names: dict[int, str] = {}
    rows: dict[Split, list[tuple[str, int]]] = {}
    for split in SPLITS:
        rows[split] = [_read_row(row, names, f"{path}: {split}[{i}]") for i, row in enumerate(content[split])]
    trained = {label for _, label in rows["train"]}
    if not trained or trained != set(range(len(names))):
        raise DataError(
            f"{path}: expected training photos for labels 0 to C - 1, got {len(trained)} labels of {len(names)}"
        )
    return tuple(names[label] for label in range(len(names))), rows


def _read_row(row: Any, names: dict[int, str], where: str) -> tuple[str, int]:
    if not isinstance(row, list) or [type(value) for value in row] != [str, int, str]:
        raise DataError(f"{where}: expected [path, label, class name], got {row!r:.80}")
    path, label, name = row
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"{where}: expected a path below the image folder, got {path!r:.80}")
    if names.setdefault(label, name) != name:
        raise DataError(f"{where}: label {label} has two names, {names[label]!r} and {name!r}")
    return path, label


def _without_missing(dataset: PhotoDataset, *, allow_missing: bool) -> PhotoDataset:
    """The dataset as it is when every photo exists, else what exists of it, or a DataError."""
    listings: dict[Path, frozenset[str]] = {}

    def exists(photo: Photo) -> bool:
        folder = photo.path.parent
        if folder not in listings:
            listings[folder] = frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()
        return photo.path.name in listings[folder]

    here = {split: [p for p in dataset.photos(split) if exists(p)] for split in SPLITS}
    total = sum(len(dataset.photos(split)) for split in SPLITS)
    missing = total - sum(map(len, here.values()))
    if missing == 0:
        return dataset
    first = next(p for split in SPLITS for p in dataset.photos(split) if not exists(p))
    if not allow_missing or not here["train"]:
        advice = "" if missing == total else ", or go on without them with --allow-missing"
        raise DataError(
            f"dataset {dataset.name}: {missing} of {total} photos are missing, the first is {first.path}; "
            f"complete the download{advice}"
        )
    return dataset.keeping(here, f"dataset {dataset.name}: went on without {missing} of {total} photos")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
