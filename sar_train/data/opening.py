"""Opening what a user names: a dataset known by name, photos in any layout that is read, or features.

A reader hands over the photos as they lie. Here the names are compared, classes without a photo are refused, and photos
are held out where the data have no test split.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sar_infer.images.formats import SUFFIXES
from sar_train.data.dataset import DEMO, DataOptions, Dataset, Photo, first_names
from sar_train.data.layouts import LAYOUTS, dataset_in, find, folder_of, is_there, missing_in
from sar_train.data.photos import same_bytes, without_excluded, without_missing, without_unreadable
from sar_train.data.readers import imagenet
from sar_train.data.readers.base import reader_of
from sar_train.data.readers.coop import read_listing
from sar_train.data.splits import hold_out
from sar_train.errors import DataError

if TYPE_CHECKING:
    from sar_train.clip.backbone import Backbone
    from sar_train.data.features import Features


IMAGENET = "imagenet"
SAME_CLASSES = (IMAGENET, "imagenetv2", "imagenet_sketch")
"""Datasets with all of ImageNet's classes."""


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
        if options.exclude:
            raise DataError(f"{spec}: has features without file names, so --exclude finds none; leave it out")
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
    if key:  # a dataset that papers report on is as it is: nothing is compared or held out
        if message := missing_in(path, key):
            raise DataError(message)
        dataset = read_listing(key, folder_of(key, path), options)
        dataset = without_excluded(dataset, options.exclude)
        if key not in imagenet.KEYS:  # which has no lists
            dataset = without_missing(dataset, allow_missing=options.allow_missing)
        if not dataset.photos("train") and not options.target:
            raise DataError(
                f"dataset {key}: has only test photos, nothing can be learned from it; it is a target "
                "for prompts that are learned elsewhere (imagenet)"
            )
        return dataset
    reader = reader_of(path)
    if reader is None:
        raise DataError(_missing_message(spec, path, options.data_root))
    dataset = without_excluded(reader.read(path, options), options.exclude)
    if "train" not in dataset.splits and not options.target:
        splits = ", ".join(dataset.splits)
        raise DataError(f"{path}: expected a split train, got {splits}; only evaluation does without one")
    return _completed(dataset, options)


def read_class_names(spec: str, data_root: Path | None = None, cache_dir: Path | None = None) -> tuple[str, ...]:
    """Return the class names of anything to train on; no backbone is needed, and of a dataset by name no photos.

    Args:
        spec: as for training; ImageNet's names come from open_clip where there is no list of them.
        data_root: the folder that holds datasets by name.
        cache_dir: where photos of packed datasets are kept between runs.

    Raises:
        DataError: nothing of that name, or data that cannot be used.
    """
    from sar_train.data.feature_file import load_features

    if is_features(spec):
        return load_features(spec).dataset.class_names
    path, key = locate(spec, data_root)
    if (key or (not path.exists() and find(spec))) in SAME_CLASSES:
        try:
            listing = imagenet.names_file(folder_of(key or IMAGENET, path))
        except DataError:
            from open_clip import IMAGENET_CLASSNAMES

            return tuple(IMAGENET_CLASSNAMES)
        return tuple(imagenet.read_names(listing).values())
    options = DataOptions(data_root, shots=0, cache_dir=cache_dir, allow_missing=True)
    if key and is_there(key, path):
        return read_listing(key, folder_of(key, path), options).class_names
    return open_dataset(spec, options).class_names


def missing(spec: str, root: Path | None) -> str:
    """Return a message on data that a user names and that are not there; an empty text if they are.

    Only names of files and folders are looked at.

    Args:
        spec: as for `open_features`.
        root: the folder that holds datasets by name.
    """
    if is_features(spec):
        return "" if spec == DEMO or Path(spec).is_file() else f"{spec}: no such feature file"
    path, key = locate(spec, root)
    if key:
        return missing_in(path, key)
    reader = reader_of(path)
    if reader is None:
        return _missing_message(spec, path, root)
    try:
        if reader.last:  # any folder, which may be one level too high
            reader.read(path, DataOptions(root, target=True))
    except DataError as error:
        return str(error)
    return ""


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
        return f"dataset {key}: give with --data-root the folder that contains {LAYOUTS[key].folder}"
    if path.is_file():
        return f"{path}: expected a folder, or a .safetensors, .csv or .jsonl file"
    nor = f", nor in {root}" if root else ""
    if len(path.parts) > 1 or path.suffix:
        return f"{path}: no such file or folder{nor}"
    near = difflib.get_close_matches(spec.lower(), LAYOUTS, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{spec}: no such folder{nor}, and no such dataset{hint}"


def _completed(dataset: Dataset, options: DataOptions) -> Dataset:
    """Check photos as a reader gave them, and hold some out where there is no test split.

    Raises:
        DataError: no class, names that are not text or that a prompt spells the same, or a class without a photo to
            train on.
    """
    if not dataset.class_names:
        raise DataError("; ".join([f"{dataset.root}: no photos found", *dataset.warnings]))
    by_spelling: dict[str, str] = {}
    for name in dataset.class_names:
        if not name.isprintable():
            raise DataError(f"{dataset.root}: class name {name!a} is not printable text; rename it")
        # Names from a Mac's folders may have accents apart.
        spelling = " ".join(unicodedata.normalize("NFC", name).replace("_", " ").lower().split())
        other = by_spelling.setdefault(spelling, name)
        if other != name:
            raise DataError(
                f"{dataset.root}: classes {other!r} and {name!r} read the same in a prompt; rename or merge them"
            )
    splits, origin, warnings = dict(dataset.splits), dataset.split_origin, list(dataset.warnings)
    if "test" not in splits and "val" in splits:
        warnings.append("no test split: accuracy is measured on the validation photos")
        splits = {"train": splits.get("train", ()), "test": splits["val"]}
    if "test" not in splits:
        origin = "ours"
    needed = [photo for photos in splits.values() for photo in photos] if options.target else splits["train"]
    if empty := _without_photos(dataset.class_names, needed):
        message = (
            f"{dataset.root}: class {empty[0]!r} has no usable photo to train on ({len(empty)} such in all; "
            f"expected {', '.join(sorted(SUFFIXES))}); add photos, or remove the class"
        )
        raise DataError("; ".join([message, *warnings]))
    pairs = same_bytes({dataset.root / path: label for split in dataset.splits.values() for path, label in split})
    if pairs:
        count = "1 photo lies" if len(pairs) == 1 else f"{len(pairs):,} photos lie"
        first = f"{pairs[0][0]} and {pairs[0][1]}"
        warnings.append(f"{count} in two classes, the first: {first}; remove it from one of them")
    if options.target:
        test = splits["test"] if "test" in splits else splits["train"]
        return replace(dataset, splits={"test": test}, split_origin=origin, warnings=tuple(warnings))
    photos_of = Counter(photo.label for photo in splits["train"])
    if few := [count for count in photos_of.values() if count < options.shots]:
        who = "1 class has" if len(few) == 1 else f"{len(few)} classes have"
        warnings.append(f"{who} fewer than {options.shots} photos to learn from (the fewest: {min(few)})")
    if "test" not in splits:
        splits = dict(hold_out(splits["train"], options.shots, options.seed))
    if untested := _without_photos(dataset.class_names, splits["test"]):
        who = "1 class has" if len(untested) == 1 else f"{len(untested)} classes have"
        warnings.append(f"{who} no photo left to test on ({first_names(untested)})")
    return replace(dataset, splits=splits, split_origin=origin, warnings=tuple(warnings), twice=tuple(pairs))


def _without_photos(class_names: Sequence[str], photos: Sequence[Photo]) -> list[str]:
    labels = {photo.label for photo in photos}
    return [name for label, name in enumerate(class_names) if label not in labels]
