"""The base class of layouts on disk, finding the one of a path, and walking through folders.

A layout is one file in ``sar_train/data/readers/`` that registers a class; nothing else names it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from sar_train.data.dataset import DataOptions, Dataset, Split
from sar_train.data.layouts import GUIDE
from sar_train.errors import DataError
from sar_train.registry import Registry

SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip
"""Splits by the names, in lower case, that folders and lists call them by."""


class Reader(ABC):
    """A layout on disk.

    Class attributes: ``words``, the layout in words; ``last``, True for one that takes what no other one recognises.
    """

    words: ClassVar[str] = "a layout of its own"
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


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield every folder, from the top, with the sorted names of its folders and of its files.

    Hidden ones are left out, and folders such as ``__MACOSX``. Links to folders are not entered; one that leads
    nowhere counts as a file. A folder that cannot be read is passed over.
    """
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        yield parent, folders, sorted(name for name in files if not name.startswith("."))


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, as `walk` yields them."""
    return next(walk(folder), ("", [], []))[1:]


def files_in(folder: Path) -> Iterator[str]:
    """Yield the path of every file in a folder to any depth."""
    return (os.path.join(parent, name) for parent, _, files in walk(folder) for name in files)  # noqa: PTH118


def lines_of(path: Path) -> list[tuple[int, str]]:
    """Return (number, text) of the lines of a list that are not empty.

    Raises:
        DataError: it is not there, or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: not there; it comes with the dataset, see {GUIDE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


readers: Registry[Reader] = Registry("layout", "sar_train.data.readers")


def reader_of(path: Path) -> Reader | None:
    """Return the reader that recognises a path, asked in the order of their names; None if there is none."""
    kinds = sorted(readers.entries.values(), key=lambda kind: kind.last)
    return next((reader for kind in kinds if (reader := kind()).recognises(path)), None) if path.exists() else None
