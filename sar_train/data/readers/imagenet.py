"""ImageNet and the four sets that it is generalised to: photos in class folders, names from ``classnames.txt``.

``classnames.txt`` has one class a line, ``n01440764 tench``, in the order of the labels. Two names occur twice in the
published file, so classes are identified by WordNet id, never by name. ImageNet's validation photos are its test set,
as in papers, so it has no validation set; the four others have only test photos.
"""

from __future__ import annotations

import re
from pathlib import Path

from sar_infer.images.formats import has_image_suffix
from sar_train.data.dataset import DataOptions, Photo, Split
from sar_train.data.layouts import GUIDE, LAYOUTS
from sar_train.data.readers.base import entries, lines_of
from sar_train.errors import DataError

CLASSES = 1000
KEYS = frozenset(("imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"))
NAMES_FILE = "classnames.txt"
MEND_VAL = (
    "move each photo into the folder of its class (val/n01440764/ILSVRC2012_val_00000293.JPEG, …), which "
    "LOC_val_solution.csv and ILSVRC's devkit say and the well-known script valprep.sh does"
)
_LINE = re.compile(r"(n\d{8})\s+(\S.*)")


def read_imagenet(
    key: str, folder: Path, options: DataOptions
) -> tuple[tuple[str, ...], dict[Split, list[Photo]], str]:
    """Return class names, photos by split, and a warning or an empty text.

    Args:
        key: of `LAYOUTS`, one of `KEYS`.
        folder: the dataset's folder.
        options: a target leaves ImageNet's training photos unlisted; ``allow_missing`` accepts the class folders that
            exist.

    Raises:
        DataError: no or bad ``classnames.txt``, no class folders, too few of them, or photos that are in none.
    """
    images, names = folder / LAYOUTS[key].images, read_names(names_file(folder))
    if key == "imagenetv2":  # whose folders are called after the labels
        names = {str(label): name for label, name in enumerate(names.values())}
    subfolders: dict[Split, str] = {"test": ""} if key != "imagenet" else {"train": "train", "test": "val"}
    if options.target:
        subfolders.pop("train", None)
    folders = [_class_folders(images / subfolder, key) for subfolder in subfolders.values()]
    if unexpected := sorted(set.union(*folders) - set(names)):
        raise DataError(f"{images}: class folder {unexpected[0]!r} is not in {NAMES_FILE}; move it away")
    present, classes = set.intersection(*folders), LAYOUTS[key].classes
    warning = ""
    if len(present) != classes:
        warning = f"dataset {key}: expected {classes} class folders, got {len(present)}; went on with those"
        if not options.allow_missing:
            first = next((f" (the first that is missing: {name})" for name in names if name not in present), "")
            raise DataError(
                f"{images}: expected {classes} class folders, got {len(present)}{first if classes == CLASSES else ''}; "
                "complete the download, or go on without them with --allow-missing"
            )
    ids = [name for name in names if name in present]  # both files are sorted by WordNet id
    splits = {
        split: [
            Photo("/".join(filter(None, (subfolder, name, photo))), label)
            for label, name in enumerate(ids)
            for photo in photo_names(images / subfolder / name)
        ]
        for split, subfolder in subfolders.items()
    }
    return tuple(names[name] for name in ids), splits, warning


def names_file(folder: Path) -> Path:
    """Return the path of a dataset's ``classnames.txt``: its own, else the one of ImageNet next to it.

    Raises:
        DataError: neither is there.
    """
    for candidate in (folder / NAMES_FILE, folder.parent / LAYOUTS["imagenet"].folder / NAMES_FILE):
        if candidate.is_file():
            return candidate
    raise DataError(f"{folder}: expected {NAMES_FILE} in it or in imagenet/ next to it; get it as {GUIDE} says")


def read_names(path: Path) -> dict[str, str]:
    """Return names by WordNet id, in the order of the labels; names may occur twice.

    Raises:
        DataError: not text, a bad line, an id twice, not in order, or not 1,000 lines.
    """
    names: dict[str, str] = {}
    for number, line in lines_of(path):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}, line {number}: expected a line such as 'n01440764 tench', got {line!r:.60}")
        if match[1] in names:
            raise DataError(f"{path}, line {number}: {match[1]} occurs twice")
        names[match[1]] = match[2]
    if len(names) != CLASSES or list(names) != sorted(names):
        order = "" if list(names) == sorted(names) else ", not sorted by id"
        raise DataError(
            f"{path}: expected {CLASSES} classes sorted by id, got {len(names)}{order}; get the file as {GUIDE} says"
        )
    return names


def _class_folders(folder: Path, key: str) -> set[str]:
    """Return the names of the class folders in a folder, which holds nothing but them."""
    if not folder.is_dir():
        raise DataError(f"dataset {key}: expected the folder {folder}, not there; see {GUIDE}")
    folders, files = entries(folder)
    if loose := sum(map(has_image_suffix, files)):
        expected = MEND_VAL if folder.name == "val" else "expected only class folders"
        raise DataError(f"{folder}: {loose} photos lie directly in it and {len(folders)} class folders; {expected}")
    if not folders:
        raise DataError(f"{folder}: expected one folder per class, got none; complete the download")
    return set(folders)


def photo_names(folder: Path) -> list[str]:
    """Return the file names of the photos in a folder, sorted; hidden files are none."""
    return [name for name in entries(folder)[1] if has_image_suffix(name)]
