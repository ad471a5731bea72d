"""A user's own photos: one folder a class, and the split that is made for them.

Either ``root/CLASS/**`` or ``root/train/CLASS/**`` with ``val`` and ``test`` beside it. Without a test split, photos
are held out: those beyond the shots, or a fifth of a class that has too few.
"""

from __future__ import annotations

import os
import random
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from sar_infer.images.formats import SUFFIXES, has_image_suffix
from sar_train.data.domains import domain_name, domains
from sar_train.data.photos import SPLITS, TEMPLATE, Photo, PhotoDataset, Split, SplitOrigin
from sar_train.data.shots import MAX_VAL_SHOTS
from sar_train.data.split_cache import SplitCache
from sar_train.errors import DataError

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip
Classes = Mapping[str, Sequence[Path]]
"""Photos by class name."""


def load_folder(
    root: Path, shots: int, seed: int, *, whole: bool = False, cache_dir: Path | None = None
) -> PhotoDataset:
    """Open a folder of class folders.

    Args:
        root: the folder. Class names are the folders' names, labels their sorted order; photos are found by suffix at
            any depth below a class folder. Hidden files and folders are passed over.
        shots: K, 0 for as many as there are.
        seed: decides which photos are held out.
        whole: to be judged on alone: the photos of a ``test`` folder, all photos where there is none.
        cache_dir: where the choice of photos that are held out is kept between runs.

    Raises:
        DataError: no such folder, no class folders, a class without a training photo, or several domains with the same
            classes (they are named).
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folders = subfolders(root)
    given = [SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders]
    trainable = "train" in given or (whole and bool(given))
    if trainable and None not in given and len(set(given)) == len(given):
        splits = {split: _classes(folder) for split, folder in zip(given, folders, strict=True) if split}
        return assemble(root.resolve().name, root, splits, shots, seed, whole=whole, cache_dir=cache_dir)
    found = domains(root)
    if found:
        raise DataError(
            f"{root}: holds the same classes in each of {', '.join(found)}, so these are domains, not classes; "
            f"give one of them, such as {root / found[0]}"
        )
    loose = sum(has_image_suffix(path.name) for path in root.iterdir() if path.is_file())
    if not folders:
        raise DataError(f"{root}: expected one folder per class, got {loose} photos and no folders")
    warnings = (f"{loose} photos directly in {root} have no class and are left out",) if loose else ()
    splits = {"train": _classes(root)}
    return assemble(domain_name(root), root, splits, shots, seed, warnings, whole=whole, cache_dir=cache_dir)


def assemble(
    name: str,
    root: Path,
    splits: Mapping[Split, Classes],
    shots: int,
    seed: int,
    warnings: tuple[str, ...] = (),
    *,
    whole: bool = False,
    cache_dir: Path | None = None,
) -> PhotoDataset:
    """A dataset from photos by split and class; what is missing to a test split is held out.

    Args:
        name: of the dataset.
        root: what paths are relative to.
        splits: ``train`` at least. With ``val`` but no ``test``, the accuracies are measured on ``val``.
        shots: K, 0 for as many as there are.
        seed: decides which photos are held out.
        warnings: to be passed on.
        whole: keep test photos alone; all photos are test photos where there is no test split.
        cache_dir: where the choice of photos that are held out is kept between runs.

    Raises:
        DataError: a class without a training photo, or class names that cannot be told apart in a prompt.
    """
    class_names = tuple(sorted({c for classes in splits.values() for c in classes}))
    _check_names(class_names, root)
    if "test" not in splits and "val" in splits:
        warnings = (*warnings, "no test split: the validation photos are tested on")
        splits = {"train": splits.get("train", {}), "test": splits["val"]}
    origin: SplitOrigin = "given" if "test" in splits else "ours"
    needed = list(splits.values()) if whole else [splits["train"]]
    empty = [c for c in class_names if not any(classes.get(c) for classes in needed)]
    _check_photos(class_names, empty, root)
    if whole:
        splits = {"test": splits.get("test") or splits["train"]}
    else:
        warnings = (*warnings, *_fewer(splits["train"], shots))
    if "test" not in splits:
        splits = _hold_out(name, root, splits["train"], shots, seed, cache_dir)
    train, val, test = (
        tuple(Photo(p, i) for i, c in enumerate(class_names) for p in splits.get(split, {}).get(c, ()))
        for split in SPLITS
    )
    return PhotoDataset(name, class_names, TEMPLATE, root, train, val, test, warnings=warnings, split_origin=origin)


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
        read = unicodedata.normalize("NFC", name).replace("_", " ").lower()  # folders from a Mac may be NFD
        other = seen.setdefault(" ".join(read.split()), name)
        if other != name:
            raise DataError(f"{root}: classes {other!r} and {name!r} read the same in a prompt; rename or merge them")


def _check_photos(class_names: Sequence[str], empty: Sequence[str], root: Path) -> None:
    """Refuse classes without a photo."""
    if not class_names:
        raise DataError(f"{root}: no photos found")
    if empty:
        raise DataError(
            f"{root}: class {empty[0]!r} has no usable photo to train on (of {len(empty)} such classes; "
            f"expected {', '.join(sorted(SUFFIXES))}); add photos, or remove the class"
        )


def _fewer(photos: Classes, shots: int) -> tuple[str, ...]:
    few = [len(paths) for paths in photos.values() if len(paths) < shots]
    return (f"{len(few)} classes have fewer than {shots} photos (the fewest: {min(few)}); all are used",) if few else ()


def _hold_out(
    name: str, root: Path, classes: Classes, shots: int, seed: int, cache_dir: Path | None
) -> dict[Split, dict[str, Sequence[Path]]]:
    prefix = root.as_posix().rstrip("/") + "/"
    named = {path.as_posix().removeprefix(prefix): (c, path) for c, paths in classes.items() for path in paths}

    def draw() -> dict[str, list[str]]:
        drawn: dict[str, list[str]] = {split: [] for split in SPLITS}
        rng = random.Random(seed)
        for c in sorted(classes):
            paths = [path.as_posix().removeprefix(prefix) for path in sorted(classes[c])]
            rng.shuffle(paths)
            train, val, _ = divide(len(paths), shots)
            parts = paths[:train], paths[train : train + val], paths[train + val :]
            for split, part in zip(SPLITS, parts, strict=True):
                drawn[split] += part
        return drawn

    listing = [f"{relative}\0{c}" for relative, (c, _) in named.items()]
    kept = SplitCache(cache_dir, name, root, listing).split(f"split-{shots}-seed_{seed}.json", draw)
    splits: dict[Split, dict[str, Sequence[Path]]] = {}
    for split in SPLITS:
        chosen: dict[str, list[Path]] = {}
        for relative in kept[split]:
            c, path = named[relative]
            chosen.setdefault(c, []).append(path)
        splits[split] = {c: sorted(paths) for c, paths in chosen.items()}
    return splits


def _classes(root: Path) -> dict[str, list[Path]]:
    return {folder.name: _images(folder) for folder in subfolders(root)}


def subfolders(root: Path) -> list[Path]:
    """Folders in a folder in sorted order, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _images(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        found += [Path(parent, f) for f in files if has_image_suffix(f) and not f.startswith(".")]
    return sorted(found)
