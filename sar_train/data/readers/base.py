"""The base class of layouts on disk, and finding the one of a path.

A layout is one file in ``sar_train/data/readers/`` that registers a class; nothing else names it.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from sar_train.data.dataset import DataOptions, Dataset, Split
from sar_train.registry import Registry

SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip
"""Splits by the names, in lower case, that folders and lists call them by."""


class Reader(ABC):
    """A layout on disk.

    Class attribute: ``last``, True for a layout that takes what no other one recognises.
    """

    last: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Return True if a file or folder that exists has this layout."""

    @abstractmethod
    def read(self, path: Path, options: DataOptions) -> Dataset:
        """Return the photos as they lie, in the splits that there are; no photo is decoded.

        What every layout needs is done afterwards: names that read the same and classes without a photo are refused,
        and where there is no test split photos are held out for it (`sar_train.data.opening`).

        Raises:
            DataError: the data cannot be used; the message says what was expected, what is there and what to do.
        """


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, sorted; none where it cannot be read.

    Hidden ones are left out, and folders such as ``__MACOSX``. A link that leads nowhere counts as a file.
    """
    folders: list[str] = []
    files: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as listed:
        for entry in listed:
            try:
                is_folder = entry.is_dir()
            except OSError:
                is_folder = False
            if not entry.name.startswith((".", "__") if is_folder else "."):
                (folders if is_folder else files).append(entry.name)
    return sorted(folders), sorted(files)


readers: Registry[Reader] = Registry("layout", "sar_train.data.readers")


def reader_of(path: Path) -> Reader | None:
    """Return the reader that recognises a path, asked in the order of their names; None if there is none."""
    kinds = sorted(readers.entries.values(), key=lambda kind: kind.last)
    return next((reader for kind in kinds if (reader := kind()).recognises(path)), None) if path.exists() else None
