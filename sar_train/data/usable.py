"""Leaving out images that are missing or cannot be decoded, before any are drawn."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sar_infer.bundle.manifest import Preprocess
from sar_train.data.images import SPLITS, ImageDataset, LabelledImage, Split
from sar_train.data.views import LISTED, load
from sar_train.errors import DataError


def without_missing(dataset: ImageDataset, *, allow_missing: bool) -> ImageDataset:
    """Return the dataset itself if every image exists, else only with the images that exist.

    Args:
        dataset: with images that a list names.
        allow_missing: go on with the rest; classes without an image to train on (to test on, where nothing is trained
            on) are left out.

    Raises:
        DataError: images are missing; the message counts them, names the first and says how to go on.
    """
    names = functools.cache(_names)  # each folder is read once

    def is_there(path: Path) -> bool:
        return path.name in names(path.parent)

    here: dict[Split, list[LabelledImage]] = {
        split: [p for p in dataset.images(split) if is_there(p.path)] for split in SPLITS
    }
    total = sum(len(dataset.images(split)) for split in SPLITS)
    missing = total - sum(map(len, here.values()))
    if missing == 0:
        return dataset
    if not allow_missing or not here["train" if dataset.train else "test"]:
        first = next(p for split in SPLITS for p in dataset.images(split) if not is_there(p.path))
        advice = "" if missing == total else ", or go on without them with --allow-missing"
        raise DataError(
            f"dataset {dataset.name}: {missing} of {total} photos are missing, the first is {first.path}; "
            f"complete the download{advice}"
        )
    return dataset.keeping(here, f"dataset {dataset.name}: went on without {missing} of {total} photos")


def _names(folder: Path) -> frozenset[str]:
    """Return the names in a folder, none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()


def without_unreadable(dataset: ImageDataset, spec: Preprocess) -> ImageDataset:
    """Decode every image once and drop those that fail, with a warning that counts them and names the first.

    Raises:
        DataError: no training image is left, or no test image where nothing is trained on.
    """

    def problem(image: LabelledImage) -> str:
        try:
            load(image.path, spec)
        except DataError as error:
            return str(error).partition("; remove")[0]
        return ""

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        problems = {split: list(pool.map(problem, dataset.images(split))) for split in SPLITS}
    found = [text for split in SPLITS for text in problems[split] if text]
    if not found:
        return dataset
    kept = {
        split: [image for image, text in zip(dataset.images(split), problems[split], strict=True) if not text]
        for split in SPLITS
    }
    if not kept["train" if dataset.train else "test"]:
        what = "training" if dataset.train else "test"
        raise DataError(f"dataset {dataset.name}: no {what} photo can be read, the first: {found[0]}")
    photos = "photo" if len(found) == 1 else "photos"
    return dataset.keeping(kept, f"{len(found)} unreadable {photos} left out ({LISTED}), the first: {found[0]}")
