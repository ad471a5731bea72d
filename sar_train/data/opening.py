"""Opening what a user names: a dataset known by name, photos in any layout that is read, or features.

A reader hands over the photos as they lie. Here the names are compared, classes without a photo are refused, and photos
are held out where the data have no test split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sar_infer.images.formats import SUFFIXES
from sar_train.data.dataset import DEMO, DataOptions, Dataset, Photo, first_names, spelling
from sar_train.data.layouts import LAYOUTS, dataset_in, find, folder_of, missing_in, nearest
from sar_train.data.photos import same_bytes, without_missing, without_unreadable
from sar_train.data.readers.base import reader_of
from sar_train.data.readers.coop import read_listing
from sar_train.data.readers.imagenet import KEYS as WITHOUT_LISTS
from sar_train.data.splits import hold_out
from sar_train.errors import DataError

if TYPE_CHECKING:
    from sar_train.clip.backbone import Backbone
    from sar_train.data.features import Features


def open_features(spec: str, backbone: Backbone, options: DataOptions) -> Features:
    """Open features of the data that a user names.

    Args:
        spec: ``demo``, a feature file (``.safetensors``), or photos: a list (``.csv``, ``.jsonl``), a folder, or the
            name of a dataset, as `open_dataset` finds them.
        backbone: encodes the photos, or must have made the features.
        options: how; a feature file needs none of them.

    Raises:
        DataError: nothing of that name, or data that cannot be used.
    """
    from sar_train.data.feature_file import load_features
    from sar_train.data.features import PhotoFeatures

    if is_features(spec):
        features = load_features(spec)
        features.require(backbone)
        return features
    dataset = open_dataset(spec, options)
    if options.skip_unreadable:
        dataset = without_unreadable(dataset)
    return PhotoFeatures(dataset, backbone, options.views, options.seed, options.cache_dir, tell=options.tell)


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
        return _open_known(key, path, options)
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
        spec: as for `open_features`.
        root: the folder that holds datasets by name.

    Raises:
        DataError: there is no such dataset.
    """
    if is_features(spec):
        return "" if spec == DEMO or Path(spec).is_file() else f"{spec}: no such feature file"
    path, key = locate(spec, root)
    if key:
        return missing_in(path, key)
    return "" if reader_of(path) else _missing_message(spec, path, root)


def is_features(spec: str) -> bool:
    """Return True for the features that ship and for the name of a feature file."""
    return spec == DEMO or spec.lower().endswith(".safetensors")


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


def _open_known(key: str, root: Path, options: DataOptions) -> Dataset:
    """Open a dataset that papers report on, which is as it is: nothing is compared or held out.

    Raises:
        DataError: no folder, no usable lists, missing photos, or test photos alone where one would learn from it.
    """
    if message := missing_in(root, key):
        raise DataError(message)
    dataset = read_listing(key, folder_of(key, root), options)
    if key not in WITHOUT_LISTS:
        dataset = without_missing(dataset, allow_missing=options.allow_missing)
    if not dataset.photos("train") and not options.target:
        raise DataError(
            f"dataset {key}: has only test photos, nothing can be learned from it; it is a target "
            "for prompts that are learned elsewhere (imagenet)"
        )
    return dataset


def _completed(dataset: Dataset, options: DataOptions) -> Dataset:
    """Check photos as a reader gave them, and hold some out where there is no test split.

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
    needed = [photo for photos in splits.values() for photo in photos] if options.target else splits["train"]
    if empty := _without_photos(dataset.class_names, needed):
        message = (
            f"{dataset.root}: class {empty[0]!r} has no usable photo to train on ({len(empty)} such in all; "
            f"expected {', '.join(sorted(SUFFIXES))}); add photos, or remove the class"
        )
        raise DataError("; ".join([message, *dataset.warnings]))
    dataset = dataset.warned(_in_two_classes(dataset))
    if options.target:
        test = splits["test"] if "test" in splits else splits["train"]
        return replace(dataset, splits={"test": test}, split_origin=origin)
    dataset = dataset.warned(_fewer(splits["train"], options.shots))
    if "test" not in splits:
        splits = dict(hold_out(splits["train"], options.shots, options.seed))
    untested = _without_photos(dataset.class_names, splits["test"])
    who = "1 class has" if len(untested) == 1 else f"{len(untested)} classes have"
    warning = f"{who} no photo left to test on ({first_names(untested)})" if untested else ""
    return replace(dataset, splits=splits, split_origin=origin).warned(warning)


def _check_names(dataset: Dataset) -> None:
    """Refuse to go on without classes, with names that are not text, or with names that a prompt spells the same."""
    if not dataset.class_names:
        raise DataError("; ".join([f"{dataset.root}: no photos found", *dataset.warnings]))
    by_spelling: dict[str, str] = {}
    for name in dataset.class_names:
        if not name.isprintable():
            raise DataError(f"{dataset.root}: class name {name!a} is not printable text; rename it")
        other = by_spelling.setdefault(spelling(name), name)
        if other != name:
            raise DataError(
                f"{dataset.root}: classes {other!r} and {name!r} read the same in a prompt; rename or merge them"
            )


def _without_photos(class_names: Sequence[str], photos: Sequence[Photo]) -> list[str]:
    """Return the classes that none of the photos is of."""
    labels = {photo.label for photo in photos}
    return [name for label, name in enumerate(class_names) if label not in labels]


def _in_two_classes(dataset: Dataset) -> str:
    """Return a warning if the same bytes lie in two classes."""
    labels = {dataset.root / path: label for split in dataset.splits.values() for path, label in split}
    pairs = [f"{one} and {other}" for one, other in same_bytes(labels)]
    count = "1 photo lies" if len(pairs) == 1 else f"{len(pairs):,} photos lie"
    return f"{count} in two classes, the first: {pairs[0]}; remove it from one of them" if pairs else ""


def _fewer(photos: Sequence[Photo], shots: int) -> str:
    """Return a warning if classes have fewer photos than the shots."""
    few = [count for count in Counter(photo.label for photo in photos).values() if count < shots]
    who = "1 class has" if len(few) == 1 else f"{len(few)} classes have"
    return f"{who} fewer than {shots} photos to learn from (the fewest: {min(few)})" if few else ""
