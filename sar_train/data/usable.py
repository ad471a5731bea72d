"""Leaving out photos that are missing or cannot be decoded, before any are drawn."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

from sar_infer.bundle.manifest import Preprocess
from sar_train.data.dataset import Dataset, Photo
from sar_train.data.views import LISTED, load
from sar_train.errors import DataError


def without_missing(dataset: Dataset, *, allow_missing: bool) -> Dataset:
    """Return the dataset itself if every photo exists, else only with the photos that exist.

    Args:
        dataset: with photos that a list names.
        allow_missing: go on with the rest; classes without a photo to train on (to test on, where nothing is trained
            on) are left out.

    Raises:
        DataError: photos are missing; the message counts them, names the first and says how to go on.
    """
    names_in = functools.cache(_names_in)  # each folder is read once
    root = os.path.join(dataset.root, "")  # noqa: PTH118 - text, for a million photos

    def exists(photo: Photo) -> bool:
        folder, name = os.path.split(root + photo.path)
        return name in names_in(folder)

    present = {split: [photo for photo in photos if exists(photo)] for split, photos in dataset.splits.items()}
    total = sum(map(len, dataset.splits.values()))
    missing = total - sum(map(len, present.values()))
    if missing == 0:
        return dataset
    if not allow_missing or not present["train" if dataset.photos("train") else "test"]:
        first = next(photo for photos in dataset.splits.values() for photo in photos if not exists(photo))
        advice = "" if missing == total else ", or go on without them with --allow-missing"
        raise DataError(
            f"dataset {dataset.name}: {missing} of {total} photos are missing, the first is {root}{first.path}; "
            f"complete the download{advice}"
        )
    return dataset.keeping(present, f"dataset {dataset.name}: went on without {missing} of {total} photos")


def without_unreadable(dataset: Dataset, spec: Preprocess) -> Dataset:
    """Decode every photo once and drop those that fail, with a warning that counts them and names the first.

    Raises:
        DataError: no training photo is left, or no test photo where nothing is trained on.
    """

    def problem(photo: Photo) -> str:
        try:
            load(dataset.root / photo.path, spec)
        except DataError as error:
            return str(error).partition("; remove")[0]
        return ""

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        problems = {split: list(pool.map(problem, photos)) for split, photos in dataset.splits.items()}
    failures = [text for texts in problems.values() for text in texts if text]
    if not failures:
        return dataset
    readable = {
        split: [photo for photo, text in zip(photos, problems[split], strict=True) if not text]
        for split, photos in dataset.splits.items()
    }
    if not readable["train" if dataset.photos("train") else "test"]:
        use = "training" if dataset.photos("train") else "test"
        raise DataError(f"dataset {dataset.name}: no {use} photo can be read, the first: {failures[0]}")
    count = "1 unreadable photo" if len(failures) == 1 else f"{len(failures)} unreadable photos"
    return dataset.keeping(readable, f"{count} left out ({LISTED}), the first: {failures[0]}")


def _names_in(folder: str) -> frozenset[str]:
    """Return the names in a folder, none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()
