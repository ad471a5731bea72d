"""Folders with one folder for each class, and the split that is made for them.

Either ``root/CLASS/**`` or ``root/train/CLASS/**`` with ``val`` and ``test`` beside it. Without a test split, images
are held out: those beyond the shots, or a fifth of a class that has too few. In a layout such as that of PACS,
``DOMAIN/CLASS/*.jpg``, every domain holds the same classes, which tells domains from classes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_infer.images.formats import SUFFIXES, UNREAD, has_image_suffix, left_out, suffix_of
from sar_train.data.images import SPLITS, DataOptions, ImageDataset, LabelledImage, Split, SplitOrigin
from sar_train.data.layouts import PHOTO
from sar_train.data.shots import MAX_VAL_SHOTS
from sar_train.data.split_cache import SplitCache
from sar_train.errors import DataError

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip
ImagesByClass = Mapping[str, Sequence[Path]]
"""Images by class name."""
_MOST_NAMED = 3
"""Classes that a warning names."""
_COMPARED = 20_000
"""Most photos among which the same one is looked for in two classes."""
MOST_DOMAINS = 100
"""A folder with more folders than this holds classes, not domains."""
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "images"))


@dataclass(frozen=True)
class FoundImages:
    """Images by split and class as they lie on disk, before any are held out.

    Attributes:
        name: of the dataset.
        root: folder that paths are relative to.
        splits: ``train``, ``val`` and ``test``, as far as they are given.
        warnings: for the user.
    """

    name: str
    root: Path
    splits: Mapping[Split, ImagesByClass]
    warnings: tuple[str, ...] = ()


def find_in_folder(root: Path, *, whole: bool = False) -> FoundImages:
    """Find the images in a folder of class folders.

    Args:
        root: the folder. Class names are the folders' names, labels their sorted order; images are found by suffix at
            any depth below a class folder. Hidden files and folders are passed over.
        whole: True for a target of evaluation, which may have a ``test`` folder alone.

    Raises:
        DataError: no class folders, several domains with the same classes (they are named), other folders beside
            those of splits, or a folder one level too high, whose folders are datasets with splits of their own.
    """
    folders = subfolders(root)
    given = [SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders]
    trainable = "train" in given or (whole and bool(given))
    if trainable and None not in given and len(set(given)) == len(given):
        splits = {split: _classes(folder) for split, folder in zip(given, folders, strict=True) if split}
        return FoundImages(root.resolve().name, root, splits, _unread(root))
    named = [folder.name for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    if "train" in given and (len(named) > 1 or _holds_classes(folders[given.index("train")])):
        others = [folder.name for folder in folders if folder.name not in named]
        beside = (
            f"and beside {'them' if len(named) > 1 else 'it'} {others[0]!r}; move it away"
            if others
            else "two of which are one; merge them"
        )
        splits_named = f"the split{'s' * (len(named) > 1)} {', '.join(named)}"
        raise DataError(f"{root}: holds {splits_named}, {beside}, or they would be taken for classes")
    _refuse_datasets(root, folders)
    found = domains(root)
    if found:
        raise DataError(
            f"{root}: holds the same classes in each of {', '.join(found)}, so these are domains, not classes; "
            f"give one of them, such as {root / found[0]}"
        )
    loose = sum(has_image_suffix(path.name) for path in root.iterdir() if path.is_file())
    if not folders:
        raise DataError(f"{root}: expected one folder per class, got {loose} photos and no folders")
    photos = "1 photo" if loose == 1 else f"{loose} photos"
    warnings = (f"left out {photos} directly in {root}, without a class",) if loose else ()
    warnings = (*warnings, *_nested(folders))
    return FoundImages(domain_name(root), root, {"train": _classes(root)}, warnings + _unread(root))


def _holds_classes(folder: Path) -> bool:
    """Return True if a folder holds class folders: two or more, and no photo beside them."""
    names, files = _folders(folder)
    classes = [name for name in names if any(map(str.isalpha, name)) and name.lower() not in _SPLITS]
    return len(classes) > 1 and not any(map(has_image_suffix, files))


def _refuse_datasets(root: Path, folders: Sequence[Path]) -> None:
    """Refuse a folder whose folders are datasets with splits: ``root/DATASET/train/CLASS``."""
    for dataset in folders:
        splits = [name for name in _folders(dataset)[0] if name.lower() in SPLIT_FOLDERS]
        if any(_holds_classes(dataset / split) for split in splits):
            raise DataError(
                f"{root}: one level too high, since {dataset} holds {', '.join(splits)} with class folders; "
                f"give {dataset}"
            )


def _nested(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return a warning if all class folders hold folders alone, which may be the classes."""
    if not all(map(_holds_classes, folders)):
        return ()
    first = folders[0]
    return (
        f"the classes are {_first_names([folder.name for folder in folders])}, whose photos lie in folders of theirs, "
        f"such as {next(iter(subfolders(first)))}; if those are the classes, give {first}",
    )


def assemble(found: FoundImages, options: DataOptions, *, whole: bool = False) -> ImageDataset:
    """Make a dataset of the images that were found; where there is no test split, images are held out for it.

    Args:
        found: with ``train`` at least, unless ``whole``. With ``val`` but no ``test``, the accuracies are measured on
            ``val``.
        options: shots, seed and cache folder.
        whole: keep test images alone; all images are test images where there is no test split.

    Raises:
        DataError: a class without a training image, or class names that cannot be told apart in a prompt.
    """
    name, root, splits, warnings = found.name, found.root, found.splits, found.warnings
    class_names = tuple(sorted({c for classes in splits.values() for c in classes}))
    _check_names(class_names, root)
    if "test" not in splits and "val" in splits:
        warnings = (*warnings, "no test split: accuracy is measured on the validation photos")
        splits = {"train": splits.get("train", {}), "test": splits["val"]}
    origin: SplitOrigin = "given" if "test" in splits else "ours"
    needed = list(splits.values()) if whole else [splits["train"]]
    empty = [c for c in class_names if not any(classes.get(c) for classes in needed)]
    _check_photos(class_names, empty, root, warnings)
    warnings = (*warnings, *_in_two_classes(splits.values()))
    if whole:
        splits = {"test": splits.get("test") or splits["train"]}
    else:
        warnings = (*warnings, *_fewer(splits["train"], options.shots))
    if "test" not in splits:
        splits = _hold_out(name, root, splits["train"], options)
    warnings = (*warnings, *_untested([c for c in class_names if not whole and not splits["test"].get(c)]))
    train, val, test = (
        tuple(LabelledImage(p, i) for i, c in enumerate(class_names) for p in splits.get(split, {}).get(c, ()))
        for split in SPLITS
    )
    return ImageDataset(name, class_names, PHOTO, root, train, val, test, warnings=warnings, split_origin=origin)


def divide(count: int, shots: int) -> tuple[int, int, int]:
    """Return how many of a class's images are (trained on, validated on, tested on).

    Beyond K shots, up to min(K, 4) but not more than half validate and the rest test. Without images beyond the shots a
    fifth tests, at least one; a single image trains.
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


def _check_photos(class_names: Sequence[str], empty: Sequence[str], root: Path, warnings: Sequence[str]) -> None:
    """Refuse classes without an image."""
    if not class_names:
        raise DataError("; ".join([f"{root}: no photos found", *warnings]))
    if empty:
        missing = (
            f"{root}: class {empty[0]!r} has no usable photo to train on ({len(empty)} such in all; "
            f"expected {', '.join(sorted(SUFFIXES))}); add photos, or remove the class"
        )
        raise DataError("; ".join([missing, *warnings]))


def _in_two_classes(splits: Iterable[ImagesByClass]) -> tuple[str, ...]:
    """Return a warning if the same bytes lie in two classes; files of a size that one class alone has are not read.

    Among many photos almost every size occurs twice, so beyond ``_COMPARED`` none is read.
    """
    photos = [(path, name) for classes in splits for name, paths in classes.items() for path in paths]
    if len(photos) > _COMPARED:
        return ()
    of_size: dict[int, dict[Path, str]] = {}
    for path, name in photos:
        with contextlib.suppress(OSError):
            of_size.setdefault(path.stat().st_size, {})[path] = name
    first: dict[bytes, Path] = {}
    pairs = []
    for size, same in of_size.items():
        for path in same if size and len(set(same.values())) > 1 else ():
            with contextlib.suppress(OSError):
                other = first.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
                if same[other] != same[path]:
                    pairs.append(f"{other} and {path}")
    who = "1 photo lies" if len(pairs) == 1 else f"{len(pairs):,} photos lie"
    return (f"{who} in two classes, the first: {pairs[0]}; remove it from one of them",) if pairs else ()


def _fewer(photos: ImagesByClass, shots: int) -> tuple[str, ...]:
    few = [len(paths) for paths in photos.values() if len(paths) < shots]
    who = "1 class has" if len(few) == 1 else f"{len(few)} classes have"
    return (f"{who} fewer than {shots} photos to learn from (the fewest: {min(few)})",) if few else ()


def _untested(classes: Sequence[str]) -> tuple[str, ...]:
    who = "1 class has" if len(classes) == 1 else f"{len(classes)} classes have"
    return (f"{who} no photo left to test on ({_first_names(classes)})",) if classes else ()


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MOST_NAMED])) + ", …" * (len(names) > _MOST_NAMED)


def _hold_out(
    name: str, root: Path, classes: ImagesByClass, options: DataOptions
) -> dict[Split, dict[str, Sequence[Path]]]:
    prefix = root.as_posix().rstrip("/") + "/"
    named = {path.as_posix().removeprefix(prefix): (c, path) for c, paths in classes.items() for path in paths}

    def draw() -> dict[str, list[str]]:
        drawn: dict[str, list[str]] = {split: [] for split in SPLITS}
        rng = random.Random(options.seed)
        for c in sorted(classes):
            paths = [path.as_posix().removeprefix(prefix) for path in sorted(classes[c])]
            rng.shuffle(paths)
            train, val, _ = divide(len(paths), options.shots)
            parts = paths[:train], paths[train : train + val], paths[train + val :]
            for split, part in zip(SPLITS, parts, strict=True):
                drawn[split] += part
        return drawn

    listing = [f"{relative}\0{c}" for relative, (c, _) in named.items()]
    cache = SplitCache(options.cache_dir, name, root, listing)
    kept = cache.split(f"split-{options.shots}-seed_{options.seed}.json", draw)
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
    """Return the folders in a folder in sorted order, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _images(folder: Path) -> list[Path]:
    return sorted(Path(path) for path in files_in(folder) if has_image_suffix(path))


def _unread(root: Path) -> tuple[str, ...]:
    """Return a warning if images are left out because their format is not read."""
    found = sorted(os.path.relpath(path, root) for path in files_in(root) if suffix_of(path) in UNREAD)
    return (left_out(Counter(map(suffix_of, found)), found[0]),) if found else ()


def files_in(folder: Path) -> Iterator[str]:
    """Yield the path of every file in a folder to any depth, without hidden ones."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from (os.path.join(parent, name) for name in files if not name.startswith("."))  # noqa: PTH118


def domains(root: Path) -> tuple[str, ...]:
    """Return the names of the domains in a folder, sorted; empty where its folders are classes.

    They are domains where there are two or more, none holds an image directly, and they have two or more folders each,
    mostly the same ones. Numbers, dates and names of splits do not count as classes, so that images of a class that
    are sorted by year or split are not mistaken.
    """
    names = _folders(root)[0]
    if not 2 <= len(names) <= MOST_DOMAINS:
        return ()
    inner: list[set[str]] = []
    for name in names:
        folders, files = _folders(root / name)
        classes = {folder for folder in folders if any(map(str.isalpha, folder)) and folder.lower() not in _SPLITS}
        if any(map(has_image_suffix, files)):
            return ()
        inner.append(classes)
    common, every = set.intersection(*inner), set.union(*inner)
    return tuple(names) if len(common) >= 2 and 2 * len(common) >= len(every) else ()


def domain_name(folder: Path) -> str:
    """Return the name of a dataset after its folder: ``pacs/photo`` for a domain, ``shop`` for ``shop/train``."""
    whole = folder.resolve()
    if whole.name in domains(whole.parent):
        return f"{whole.parent.name}/{whole.name}"
    return whole.parent.name if whole.name.lower() in SPLIT_FOLDERS and whole.parent.name else whole.name


def _folders(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, sorted, without hidden ones."""
    found: tuple[list[str], list[str]] = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith((".", "__")):
                    found[0 if entry.is_dir() else 1].append(entry.name)
    except OSError:
        return [], []
    return sorted(found[0]), sorted(found[1])
