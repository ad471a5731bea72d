"""Folders with one folder for each class.

Either ``root/CLASS/**`` or ``root/train/CLASS/**`` with ``val`` and ``test`` beside it. In a layout such as that of
PACS, ``DOMAIN/CLASS/*.jpg``, every domain holds the same classes, which tells domains from classes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from sar_infer.images.formats import UNREAD, has_image_suffix, left_out, suffix_of
from sar_train.data.dataset import DataOptions, Dataset, first_names
from sar_train.data.readers.base import SPLIT_NAMES, Reader, entries, readers
from sar_train.errors import DataError

MOST_DOMAINS = 100
"""A folder with more folders than this holds classes, not domains."""
_NO_CLASSES = frozenset((*SPLIT_NAMES, "images"))


@readers.register("folder")
class ClassFolders(Reader):
    """Class names are the folders' names; photos are found by suffix at any depth below a class folder.

    Hidden files and folders are passed over. A target of evaluation may have a folder ``test`` alone.
    """

    last = True

    def recognises(self, path: Path) -> bool:
        """Return True for any folder."""
        return path.is_dir()

    def read(self, path: Path, options: DataOptions) -> Dataset:
        """Return the photos by class, in the splits that folders are called after.

        Raises:
            DataError: no class folders, several domains with the same classes (they are named), other folders beside
                those of splits, or a folder one level too high, whose folders are datasets with splits of their own.
        """
        folders = subfolders(path)
        splits = [SPLIT_NAMES.get(folder.name.lower()) for folder in folders]
        usable = "train" in splits or (options.target and bool(splits))
        if usable and None not in splits and len(set(splits)) == len(splits):
            paths = {split: _classes(folder) for split, folder in zip(splits, folders, strict=True) if split}
            return Dataset.from_paths(path.resolve().name, path, paths, _unread(path))
        if "train" in splits:
            _refuse_split_as_class(path, folders, folders[splits.index("train")])
        _refuse_datasets(path, folders)
        if names := domains(path):
            raise DataError(
                f"{path}: holds the same classes in each of {', '.join(names)}, so these are domains, not classes; "
                f"give one of them, such as {path / names[0]}"
            )
        loose = sum(map(has_image_suffix, entries(path)[1]))
        if not folders:
            raise DataError(f"{path}: expected one folder per class, got {loose} photos and no folders")
        photos = "1 photo" if loose == 1 else f"{loose} photos"
        warnings = (f"left out {photos} directly in {path}, without a class",) if loose else ()
        warnings = (*warnings, *_nested(folders), *_unread(path))
        return Dataset.from_paths(domain_name(path), path, {"train": _classes(path)}, warnings)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder in sorted order, without hidden ones."""
    return [folder / name for name in entries(folder)[0]]


def files_in(folder: Path) -> Iterator[str]:
    """Yield the path of every file in a folder to any depth, without hidden ones."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from (os.path.join(parent, name) for name in files if not name.startswith("."))  # noqa: PTH118


def domains(folder: Path) -> tuple[str, ...]:
    """Return the names of the domains in a folder, sorted; empty where its folders are classes.

    They are domains where there are two or more, none is a split or holds a photo directly, and they have two or more
    class folders each, mostly the same ones.
    """
    names = entries(folder)[0]
    if not 2 <= len(names) <= MOST_DOMAINS or any(name.lower() in SPLIT_NAMES for name in names):
        return ()
    classes = [_possible_classes(folder / name) or set() for name in names]
    common, every = set.intersection(*classes), set.union(*classes)
    return tuple(names) if len(common) >= 2 and 2 * len(common) >= len(every) else ()


def domain_name(folder: Path) -> str:
    """Return the name of a dataset after its folder: ``pacs/photo`` for a domain, ``shop`` for ``shop/train``."""
    whole = folder.resolve()
    if whole.name in domains(whole.parent):
        return f"{whole.parent.name}/{whole.name}"
    return whole.parent.name if whole.name.lower() in SPLIT_NAMES and whole.parent.name else whole.name


def _refuse_split_as_class(path: Path, folders: Sequence[Path], train: Path) -> None:
    """Refuse splits beside another folder, or twice, which would be taken for classes; a class may be called train."""
    splits = [folder.name for folder in folders if folder.name.lower() in SPLIT_NAMES]
    others = [folder.name for folder in folders if folder.name not in splits]
    if len(splits) == 1 and not _holds_classes(train):
        return
    them, plural = ("it", "") if len(splits) == 1 else ("them", "s")
    beside = f"and beside {them} {others[0]!r}; move it away" if others else "two of which are one; merge them"
    raise DataError(
        f"{path}: holds the split{plural} {', '.join(splits)}, {beside}, or they would be taken for classes"
    )


def _refuse_datasets(path: Path, folders: Sequence[Path]) -> None:
    """Refuse a folder whose folders are datasets with splits: ``path/DATASET/train/CLASS``."""
    for dataset in folders:
        splits = [name for name in entries(dataset)[0] if name.lower() in SPLIT_NAMES]
        if any(_holds_classes(dataset / split) for split in splits):
            raise DataError(
                f"{path}: one level too high, since {dataset} holds {', '.join(splits)} with class folders; "
                f"give {dataset}"
            )


def _nested(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return a warning if all class folders hold folders alone, which may be the classes."""
    if not all(map(_holds_classes, folders)):
        return ()
    return (
        f"the classes are {first_names([folder.name for folder in folders])}, whose photos lie in folders of theirs, "
        f"such as {subfolders(folders[0])[0]}; if those are the classes, give {folders[0]}",
    )


def _holds_classes(folder: Path) -> bool:
    """Return True if a folder holds class folders: two or more, and no photo beside them."""
    classes = _possible_classes(folder)
    return classes is not None and len(classes) > 1


def _possible_classes(folder: Path) -> set[str] | None:
    """Return the names of the folders in a folder that may be classes; None if a photo lies beside them.

    Numbers, dates and names of splits are none, since photos of a class may be sorted by them.
    """
    folders, files = entries(folder)
    if any(map(has_image_suffix, files)):
        return None
    return {name for name in folders if any(map(str.isalpha, name)) and name.lower() not in _NO_CLASSES}


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the photos of each class folder, sorted."""
    return {
        classes.name: sorted(Path(path) for path in files_in(classes) if has_image_suffix(path))
        for classes in subfolders(folder)
    }


def _unread(folder: Path) -> tuple[str, ...]:
    """Return a warning if photos are left out because their format is not read."""
    names = sorted(os.path.relpath(path, folder) for path in files_in(folder) if suffix_of(path) in UNREAD)
    return (left_out(Counter(map(suffix_of, names)), names[0]),) if names else ()
