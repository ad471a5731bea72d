"""Folders with one folder for each class.

Either ``root/CLASS/**`` or ``root/train/CLASS/**`` with ``val`` and ``test`` next to it. In a layout such as that of
PACS, ``DOMAIN/CLASS/*.jpg``, every domain has the same classes, which distinguishes domains from classes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from sar_infer.images.formats import UNREAD, has_image_suffix, left_out, suffix_of
from sar_train.data.dataset import DataOptions, Dataset, first_names
from sar_train.data.readers.base import SPLIT_NAMES, Reader, entries, files_in, readers
from sar_train.errors import DataError

MOST_DOMAINS = 100
"""A folder with more folders than this holds classes, not domains."""


@readers.register("folder")
class ClassFolders(Reader):
    """Class names are the folders' names; photos are found by suffix at any depth below a class folder.

    Hidden files and folders are passed over. A target of evaluation may have only a folder ``test``.
    """

    words, last = "a folder for each class", True

    def recognises(self, path: Path) -> bool:
        """Return True for any folder."""
        return path.is_dir()

    def read(self, path: Path, options: DataOptions) -> Dataset:
        """Return the photos by class, in the splits that folders are called after.

        Raises:
            DataError: no class folders, several domains with the same classes (they are named), other folders next to
                those of splits, or a folder one level too high, whose folders are datasets with splits of their own.
        """
        names, files = entries(path)
        splits = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
        others = [name for name in names if name not in splits]
        unread = sorted(os.path.relpath(file, path) for file in files_in(path) if suffix_of(file) in UNREAD)
        warnings = [left_out(Counter(map(suffix_of, unread)), unread[0])] if unread else []
        usable = "train" in splits.values() or (options.target and bool(splits))
        if usable and not others and len({*splits.values()}) == len(splits):
            paths = {split: _classes(path / name) for name, split in splits.items()}
            return Dataset.from_paths(path.resolve().name, path, paths, tuple(warnings))
        loose = sum(map(has_image_suffix, files))
        _refuse_splits(path, splits, others)
        _refuse_datasets(path, names)
        if not names:
            raise DataError(f"{path}: expected one folder per class, got {loose} photos and no folders")
        if loose:
            photos = "1 photo" if loose == 1 else f"{loose} photos"
            warnings.insert(0, f"left out {photos} directly in {path}, without a class")
        if all(_holds_classes(path / name) for name in names):
            first = path / names[0]
            warnings.insert(
                bool(loose),
                f"the classes are {first_names(names)}, whose photos lie in folders of theirs, such as "
                f"{first / entries(first)[0][0]}; if those are the classes, give {first}",
            )
        return Dataset.from_paths(domain_name(path), path, {"train": _classes(path)}, tuple(warnings))


def _refuse_splits(path: Path, splits: Mapping[str, str], others: Sequence[str]) -> None:
    """Raise DataError where a folder has splits and other folders, or a split twice."""
    train = [name for name, split in splits.items() if split == "train"]
    if train and (len(splits) > 1 or _holds_classes(path / train[0])):  # a class may be called train
        them, plural = ("it", "") if len(splits) == 1 else ("them", "s")
        rest = f"and next to {them} {others[0]!r}; move it away" if others else "two of which are one; merge them"
        raise DataError(f"{path}: contains the split{plural} {', '.join(splits)}, {rest}, or they would be classes")


def _refuse_datasets(path: Path, names: Sequence[str]) -> None:
    """Raise DataError where the folders in a folder are datasets with splits of their own, or domains."""
    for name in names:
        inner = [split for split in entries(path / name)[0] if split.lower() in SPLIT_NAMES]
        if any(_holds_classes(path / name / split) for split in inner):
            raise DataError(
                f"{path}: one level too high, since {path / name} contains {', '.join(inner)} with class folders; "
                f"give {path / name}"
            )
    if names_of_domains := domains(path):
        raise DataError(
            f"{path}: contains the same classes in each of {', '.join(names_of_domains)}, so these are domains, not "
            f"classes; give one of them, such as {path / names_of_domains[0]}"
        )


def domains(folder: Path) -> tuple[str, ...]:
    """Return the names of the domains in a folder, sorted; empty where its folders are classes.

    They are domains where there are two or more, none is a split or holds a photo directly, and they have two or more
    class folders each, mostly the same ones.
    """
    names = entries(folder)[0]
    if not 2 <= len(names) <= MOST_DOMAINS or any(name.lower() in SPLIT_NAMES for name in names):
        return ()
    classes = [_possible_classes(folder / name) for name in names]
    common, every = set.intersection(*classes), set.union(*classes)
    return tuple(names) if len(common) >= 2 and 2 * len(common) >= len(every) else ()


def domain_name(folder: Path) -> str:
    """Return the name of a dataset after its folder: ``pacs/photo`` for a domain, ``shop`` for ``shop/train``."""
    whole = folder.resolve()
    if whole.name in domains(whole.parent):
        return f"{whole.parent.name}/{whole.name}"
    return whole.parent.name if whole.name.lower() in SPLIT_NAMES and whole.parent.name else whole.name


def _holds_classes(folder: Path) -> bool:
    """Return True if a folder holds class folders: two or more, and no photo next to them."""
    return len(_possible_classes(folder)) > 1


def _possible_classes(folder: Path) -> set[str]:
    """Return the names of the folders in a folder that may be classes; none if a photo lies next to them.

    Numbers, dates and names of splits are none, since photos of a class may be sorted by them.
    """
    folders, files = entries(folder)
    if any(map(has_image_suffix, files)):
        return set()
    return {name for name in folders if any(map(str.isalpha, name)) and name.lower() not in {*SPLIT_NAMES, "images"}}


def _classes(folder: Path) -> dict[str, list[Path]]:
    return {
        name: sorted(Path(path) for path in files_in(folder / name) if has_image_suffix(path))
        for name in entries(folder)[0]
    }
