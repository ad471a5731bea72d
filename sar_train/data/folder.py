"""A user's own photos: one folder a class, and the split that is made for them.

Either ``root/CLASS/**`` or ``root/train/CLASS/**`` with ``val`` and ``test`` beside it. Without a test split, photos
are held out: those beyond the shots, or a fifth of a class that has too few.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from sar_train.data.photos import SPLITS, TEMPLATE, Photo, PhotoDataset, Split
from sar_train.data.shots import MAX_VAL_SHOTS
from sar_train.errors import DataError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
_SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip
Classes = Mapping[str, Sequence[Path]]
"""Photos by class name."""


def load_folder(root: Path, shots: int, seed: int) -> PhotoDataset:
    """Open a folder of class folders.

    Args:
        root: the folder. Class names are the folders' names, labels their sorted order; photos are found by suffix at
            any depth below a class folder. Hidden files and folders are passed over.
        shots: K, 0 for as many as there are.
        seed: decides which photos are held out.

    Raises:
        DataError: no such folder, no class folders, or a class without a training photo.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folders = _subfolders(root)
    given = [_SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders]
    if "train" in given and None not in given and len(set(given)) == len(given):
        splits = {split: _classes(folder) for split, folder in zip(given, folders, strict=True) if split}
        return assemble(root.resolve().name, root, splits, shots, seed)
    loose = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir() if path.is_file())
    if not folders:
        raise DataError(f"{root}: expected one folder per class, got {loose} photos and no folders")
    warnings = (f"{loose} photos directly in {root} have no class and are left out",) if loose else ()
    return assemble(root.resolve().name, root, {"train": _classes(root)}, shots, seed, warnings)


def assemble(
    name: str,
    root: Path,
    splits: Mapping[Split, Classes],
    shots: int,
    seed: int,
    warnings: tuple[str, ...] = (),
) -> PhotoDataset:
    """A dataset from photos by split and class; what is missing to a test split is held out.

    Args:
        name: of the dataset.
        root: what paths are relative to.
        splits: ``train`` at least. With ``val`` but no ``test``, the accuracies are measured on ``val``.
        shots: K, 0 for as many as there are.
        seed: decides which photos are held out.
        warnings: to be passed on.

    Raises:
        DataError: a class without a training photo, or class names that cannot be told apart in a prompt.
    """
    class_names = tuple(sorted({c for classes in splits.values() for c in classes}))
    _check_names(class_names, root)
    empty = [c for c in class_names if not splits["train"].get(c)]
    if empty or not class_names:
        raise DataError(
            f"{root}: class {empty[0]!r} has no usable photo to train on (of {len(empty)} such classes; "
            f"expected {', '.join(sorted(IMAGE_SUFFIXES))}); add photos, or remove the class"
            if empty
            else f"{root}: no photos found"
        )
    if "test" not in splits and "val" in splits:
        warnings = (*warnings, "no test split: the validation photos are tested on")
        splits = {"train": splits["train"], "test": splits["val"]}
    few = [c for c in class_names if len(splits["train"][c]) < shots]
    if few:
        fewest = min(len(splits["train"][c]) for c in few)
        text = f"{len(few)} classes have fewer than {shots} photos (the fewest: {fewest}); all are used"
        warnings = (*warnings, text)
    if "test" not in splits:
        splits = _hold_out(splits["train"], shots, seed)
    photos = {
        split: tuple(Photo(p, i) for i, c in enumerate(class_names) for p in splits.get(split, {}).get(c, ()))
        for split in SPLITS
    }
    return PhotoDataset(
        name, class_names, TEMPLATE, root, photos["train"], photos["val"], photos["test"], warnings=warnings
    )


def divide(count: int, shots: int) -> tuple[int, int, int]:
    """How many of a class's photos are (trained on, validated on, tested on).

    Beyond K shots, up to min(K, 4) but not more than half validate and the rest test. Without photos beyond the shots a
    fifth tests, at least one; a single photo trains.
    """
    if count <= 1:
        return count, 0, 0
    if shots < 1 or count <= shots:
        test = max(1, count // 5)
        return count - test, 0, test
    val = min(shots, MAX_VAL_SHOTS, (count - shots) // 2)
    return shots, val, count - shots - val


def _check_names(class_names: Sequence[str], root: Path) -> None:
    """Refuse names that are not text, and names that a prompt spells the same."""
    seen: dict[str, str] = {}
    for name in class_names:
        if not name.isprintable():
            raise DataError(f"{root}: class name {name!a} is not printable text; rename it")
        other = seen.setdefault(" ".join(name.replace("_", " ").lower().split()), name)
        if other != name:
            raise DataError(f"{root}: classes {other!r} and {name!r} read the same in a prompt; rename or merge them")


def _hold_out(classes: Classes, shots: int, seed: int) -> dict[Split, dict[str, Sequence[Path]]]:
    splits: dict[Split, dict[str, Sequence[Path]]] = {split: {} for split in SPLITS}
    rng = random.Random(seed)
    for name in sorted(classes):
        paths = sorted(classes[name])
        rng.shuffle(paths)
        train, val, _ = divide(len(paths), shots)
        parts = paths[:train], paths[train : train + val], paths[train + val :]
        for split, part in zip(SPLITS, parts, strict=True):
            splits[split][name] = sorted(part)
    return splits


def _classes(root: Path) -> dict[str, list[Path]]:
    return {folder.name: _images(folder) for folder in _subfolders(root)}


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _images(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        found += [Path(parent, f) for f in files if Path(f).suffix.lower() in IMAGE_SUFFIXES and not f.startswith(".")]
    return sorted(found)
