"""ImageNet and the four sets that it is generalised to: photos in class folders, names from ``classnames.txt``.

``classnames.txt`` has one class a line, ``n01440764 tench``, in the order of the labels. Two names occur twice in the
published file, so classes are told apart by WordNet id, never by name. ImageNet's validation photos are its test set,
as in papers, so there are none to choose settings by; the four others have nothing but test photos.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from sar_infer.images.formats import has_image_suffix
from sar_train.data.layouts import GUIDE, LAYOUTS
from sar_train.data.split_file import Rows
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
    key: str, folder: Path, *, whole: bool = False, allow_missing: bool = False
) -> tuple[tuple[str, ...], Rows, str]:
    """Class names, (path, label) by split, and a warning or nothing.

    Args:
        key: of `LAYOUTS`, one of `KEYS`.
        folder: the dataset's folder.
        whole: leave ImageNet's training photos unlisted.
        allow_missing: go on with the class folders that exist.

    Raises:
        DataError: no or bad ``classnames.txt``, no class folders, too few of them, or photos that are in none.
    """
    layout = LAYOUTS[key]
    ids = read_class_names(names_file(folder))
    parts = {"": "test"} if key != "imagenet" else {"val": "test"} if whole else {"train": "train", "val": "test"}
    found = {split: _class_folders(folder / layout.images / part, key) for part, split in parts.items()}
    by_number = key == "imagenetv2"
    known = [str(place) for place in range(CLASSES)] if by_number else list(ids)
    names = dict(zip(known, ids.values(), strict=True))
    present = set.intersection(*map(set, found.values()))
    strange = sorted(set.union(*map(set, found.values())) - set(known))
    if strange:
        raise DataError(f"{folder / layout.images}: class folder {strange[0]!r} is not in {NAMES_FILE}; move it away")
    warning = ""
    if len(present) != layout.classes:
        expected = f"expected {layout.classes} class folders, got {len(present)}"
        lost = next((name for name in known if name not in present), "") if layout.classes == CLASSES else ""
        if not allow_missing:
            where = ", ".join(str(folder / layout.images / part) for part in parts)
            missing = f" (the first that is missing: {lost})" if lost else ""
            raise DataError(
                f"{where}: {expected}{missing}; complete the download, or go on without them with --allow-missing"
            )
        warning = f"dataset {key}: {expected}; went on with those"
    order = [name for name in known if name in present]  # both files are sorted by WordNet id
    rows: Rows = {"train": [], "val": [], "test": []}
    for part, split in parts.items():
        for label, name in enumerate(order):
            photos = _photos(found[split][name])
            rows["train" if split == "train" else "test"] += [
                ("/".join(filter(None, (part, name, p))), label) for p in photos
            ]
    return tuple(names[name] for name in order), rows, warning


def problems(key: str, folder: Path) -> list[str]:
    """Everything that is wrong with the names and with each folder of class folders, one message each."""
    found = []
    try:
        read_class_names(names_file(folder))
    except DataError as error:
        found.append(str(error))
    for part in ("train", "val") if key == "imagenet" else ("",):
        try:
            _class_folders(folder / LAYOUTS[key].images / part, key)
        except (DataError, OSError) as error:
            found.append(str(error))
    return found


def names_file(folder: Path) -> Path:
    """``classnames.txt`` of a dataset: its own, else the one of ImageNet beside it.

    Raises:
        DataError: neither is there.
    """
    for place in (folder, folder.parent / LAYOUTS["imagenet"].folder):
        if (place / NAMES_FILE).is_file():
            return place / NAMES_FILE
    raise DataError(
        f"{folder}: expected {NAMES_FILE} in it or in imagenet/ beside it, not there; get it as {GUIDE} says"
    )


def read_class_names(path: Path) -> dict[str, str]:
    """Names by WordNet id, in the order of the labels; names may occur twice.

    Raises:
        DataError: not text, a bad line, an id twice, not in order, or not 1,000 lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
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


def _class_folders(folder: Path, key: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"dataset {key}: expected the folder {folder}, not there; see {GUIDE}")
    with os.scandir(folder) as entries:
        listed = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    folders = {name: folder / name for name, is_folder in sorted(listed) if is_folder}
    loose = sum(has_image_suffix(name) for name, is_folder in listed if not is_folder)
    if loose:
        what = f"{loose} photos lie directly in it and {len(folders)} class folders"
        raise DataError(f"{folder}: {what}; {MEND_VAL if folder.name == 'val' else 'expected class folders alone'}")
    if not folders:
        raise DataError(f"{folder}: expected one folder per class, got none; complete the download")
    return folders


def _photos(folder: Path) -> Sequence[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if has_image_suffix(e.name) and not e.name.startswith("."))
