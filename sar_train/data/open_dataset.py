"""Opening the dataset that a user names: one of those that are known by name, or photos in any layout that is read.

A reader hands over the photos as they lie. Here the names are compared, classes without a photo are refused, and photos
are held out where the data have no test split.
"""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sar_infer.images.formats import SUFFIXES
from sar_train.data.coop import read_dataset
from sar_train.data.dataset import DEMO, SPLITS, DataOptions, Dataset, Photo, first_names
from sar_train.data.layouts import LAYOUTS, dataset_in, find, missing_in, nearest
from sar_train.data.readers.base import reader_of
from sar_train.data.splits import hold_out
from sar_train.errors import DataError

_COMPARED = 20_000
"""Most photos among which the same one is looked for in two classes."""


def open_dataset(spec: str, options: DataOptions) -> Dataset:
    """Open the photos that a user names.

    Args:
        spec: a dataset's name, a folder or a list. With a ``data_root`` the name of a dataset takes precedence over a
            file or folder of that name, and what is not there is looked for below it too (``pacs/photo``).
        options: how; views and unreadable photos do not matter here.

    Raises:
        DataError: nothing of that name, or data that cannot be used.
    """
    path, key = locate(spec, options.data_root)
    if key:
        dataset = read_dataset(key, path, options)
        if not dataset.photos("train") and not options.target:
            raise DataError(
                f"dataset {key}: has only test photos, nothing can be learned from it; it is a target "
                "for prompts that are learned elsewhere (imagenet)"
            )
        return dataset
    reader = reader_of(path)
    if reader is None:
        raise DataError(_missing_message(spec, path, options.data_root))
    dataset = reader.read(path, options)
    if "train" not in dataset.splits and not options.target:
        splits = ", ".join(dataset.splits)
        raise DataError(f"{path}: expected a split train, got {splits}; only evaluation does without one")
    return _completed(dataset, options)


def missing(spec: str, root: Path | None) -> str:
    """Return a message on data that a user names and that are not there; an empty text if they are.

    Only names of files and folders are looked at.

    Args:
        spec: as for `open_dataset`; also ``demo`` or a feature file.
        root: the folder that holds datasets by name.

    Raises:
        DataError: there is no such dataset.
    """
    if spec == DEMO or spec.endswith(".safetensors"):
        return "" if spec == DEMO or Path(spec).is_file() else f"{spec}: no such feature file"
    path, key = locate(spec, root)
    if key:
        return missing_in(path, key)
    return "" if reader_of(path) else _missing_message(spec, path, root)


def locate(spec: str, root: Path | None) -> tuple[Path, str | None]:
    """Return where photos should lie, and the dataset by name that they are."""
    path, key = Path(spec), find(spec)
    if root and key:
        return root, key
    if root and not path.exists() and (root / path).exists():
        path = root / path
    return path, dataset_in(path) if path.is_dir() else None


def _missing_message(spec: str, path: Path, root: Path | None) -> str:
    if key := find(spec):
        return f"dataset {key}: give with --data-root the folder that holds {LAYOUTS[key].folder}"
    if path.is_file():
        return f"{path}: expected a folder, or a .safetensors, .csv or .jsonl file"
    nor = f", nor in {root}" if root else ""
    if len(path.parts) > 1 or path.suffix:
        return f"{path}: no such file or folder{nor}"
    raise DataError(f"{spec}: no such folder{nor}, and no such dataset{nearest(spec)}")


def _completed(dataset: Dataset, options: DataOptions) -> Dataset:
    """Check photos as a reader found them, and hold some out where there is no test split.

    Raises:
        DataError: a class without a photo to train on, or class names that cannot be told apart in a prompt.
    """
    splits, origin = dict(dataset.splits), dataset.split_origin
    _check_names(dataset)
    if "test" not in splits and "val" in splits:
        dataset = dataset.warned("no test split: accuracy is measured on the validation photos")
        splits = {"train": splits.get("train", ()), "test": splits["val"]}
    if "test" not in splits:
        origin = "ours"
    _check_photos(
        dataset, [photo for photos in splits.values() for photo in photos] if options.target else splits["train"]
    )
    dataset = dataset.warned(_in_two_classes(dataset))
    if options.target:
        return replace(
            dataset, splits={"test": splits["test"] if "test" in splits else splits["train"]}, split_origin=origin
        )
    dataset = dataset.warned(_fewer(splits["train"], options.shots))
    if "test" not in splits:
        splits = dict(hold_out(splits["train"], options.shots, options.seed))
    return replace(dataset, splits=splits, split_origin=origin).warned(_untested(dataset.class_names, splits["test"]))


def _check_names(dataset: Dataset) -> None:
    """Refuse names that are not text, and names that a prompt spells the same."""
    spelt: dict[str, str] = {}
    for name in dataset.class_names:
        if not name.isprintable():
            raise DataError(f"{dataset.root}: class name {name!a} is not printable text; rename it")
        plain = unicodedata.normalize("NFC", name).replace("_", " ").lower()  # folders from a Mac may be NFD
        other = spelt.setdefault(" ".join(plain.split()), name)
        if other != name:
            raise DataError(
                f"{dataset.root}: classes {other!r} and {name!r} read the same in a prompt; rename or merge them"
            )


def _check_photos(dataset: Dataset, photos: Sequence[Photo]) -> None:
    """Refuse classes without a photo among those that are needed."""
    if not dataset.class_names:
        raise DataError("; ".join([f"{dataset.root}: no photos found", *dataset.warnings]))
    labels = {photo.label for photo in photos}
    if empty := [name for label, name in enumerate(dataset.class_names) if label not in labels]:
        message = (
            f"{dataset.root}: class {empty[0]!r} has no usable photo to train on ({len(empty)} such in all; "
            f"expected {', '.join(sorted(SUFFIXES))}); add photos, or remove the class"
        )
        raise DataError("; ".join([message, *dataset.warnings]))


def _in_two_classes(dataset: Dataset) -> str:
    """Return a warning if the same bytes lie in two classes."""
    labels = {dataset.root / path: label for split in dataset.splits.values() for path, label in split}
    pairs = [f"{one} and {other}" for one, other in _same_bytes(labels)]
    count = "1 photo lies" if len(pairs) == 1 else f"{len(pairs):,} photos lie"
    return f"{count} in two classes, the first: {pairs[0]}; remove it from one of them" if pairs else ""


def copied(dataset: Dataset) -> list[tuple[Path, Path]]:
    """Return files of two splits that hold the same bytes, the first of them and each other one."""
    return _same_bytes({dataset.root / photo.path: split for split in SPLITS for photo in dataset.photos(split)})


def _same_bytes(groups: Mapping[Path, Hashable]) -> list[tuple[Path, Path]]:
    """Return pairs of files with the same bytes in different groups; a size that one group alone has is not read.

    Among many photos almost every size occurs twice, so beyond ``_COMPARED`` none is read.
    """
    if len(groups) > _COMPARED:
        return []
    by_size: dict[int, list[Path]] = {}
    for file in groups:
        with contextlib.suppress(OSError):
            by_size.setdefault(file.stat().st_size, []).append(file)
    first: dict[bytes, Path] = {}
    pairs = []
    for size, files in by_size.items():
        for file in files if size and len({groups[file] for file in files}) > 1 else ():
            with contextlib.suppress(OSError):
                other = first.setdefault(hashlib.sha256(file.read_bytes()).digest(), file)
                if groups[other] != groups[file]:
                    pairs.append((other, file))
    return pairs


def _fewer(photos: Sequence[Photo], shots: int) -> str:
    few = [count for count in Counter(photo.label for photo in photos).values() if count < shots]
    who = "1 class has" if len(few) == 1 else f"{len(few)} classes have"
    return f"{who} fewer than {shots} photos to learn from (the fewest: {min(few)})" if few else ""


def _untested(class_names: Sequence[str], photos: Sequence[Photo]) -> str:
    labels = {photo.label for photo in photos}
    untested = [name for label, name in enumerate(class_names) if label not in labels]
    who = "1 class has" if len(untested) == 1 else f"{len(untested)} classes have"
    return f"{who} no photo left to test on ({first_names(untested)})" if untested else ""
