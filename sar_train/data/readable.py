"""Leaving out photos that cannot be decoded, before any are drawn."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from sar_infer.artefact.manifest import Preprocess
from sar_train.data.photos import SPLITS, Photo, PhotoDataset
from sar_train.data.views import load
from sar_train.errors import DataError


def without_unreadable(dataset: PhotoDataset, spec: Preprocess) -> PhotoDataset:
    """Decode every photo once and drop those that fail, with a warning that counts them and names the first.

    Raises:
        DataError: no training photo is left, or no test photo where nothing is trained on.
    """

    def problem(photo: Photo) -> str:
        try:
            load(photo.path, spec)
        except DataError as error:
            return str(error).partition("; remove")[0]
        return ""

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        problems = {split: list(pool.map(problem, dataset.photos(split))) for split in SPLITS}
    found = [text for split in SPLITS for text in problems[split] if text]
    if not found:
        return dataset
    kept = {
        split: [photo for photo, text in zip(dataset.photos(split), problems[split], strict=True) if not text]
        for split in SPLITS
    }
    if not kept["train" if dataset.train else "test"]:
        what = "training" if dataset.train else "test"
        raise DataError(f"dataset {dataset.name}: no {what} photo can be read, the first: {found[0]}")
    return dataset.keeping(kept, f"{len(found)} unreadable photos left out, the first: {found[0]}")
