"""Photos listed one per line in a CSV or JSONL file: ``path``, ``label`` and, optionally, ``split``.

The ``metadata.csv`` or ``metadata.jsonl`` of Hugging Face's image folders is such a list too; its path is called
``file_name``, and it may lie in each split's folder.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sar_train.data.dataset import DataOptions, Dataset, Split
from sar_train.data.readers.base import SPLIT_NAMES, Reader, readers
from sar_train.data.readers.folder import subfolders
from sar_train.errors import DataError

LIST_SUFFIXES = (".csv", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")
LABEL_COLUMNS = ("label", "class", "class_name", "category")


class _Row(NamedTuple):
    """A line of a list: the photo below a folder, its class, its split ('' for train), and the line for messages."""

    folder: Path
    photo: str
    label: str
    split: str
    line: str


@readers.register("list")
class PhotoList(Reader):
    """A CSV with the header ``path,label`` or ``path,label,split``, or a JSONL file with objects of these names.

    Paths are relative to the list; labels are class names; splits are train, val and test.
    """

    def recognises(self, path: Path) -> bool:
        """Return True for a file with the suffix ``.csv`` or ``.jsonl``."""
        return path.is_file() and path.suffix.lower() in LIST_SUFFIXES

    def read(self, path: Path, options: DataOptions) -> Dataset:  # noqa: ARG002
        """Return the photos that the list names.

        Raises:
            DataError: not text, a bad line (its number is named), or photos that are missing.
        """
        rows = (
            _Row(path.parent, row.get("path", ""), row.get("label", ""), row.get("split", ""), line)
            for line, row in _rows(path, ("path", "label"))
        )
        return _dataset(path.stem, path.parent, path, rows)


@readers.register("metadata")
class Metadata(Reader):
    """Hugging Face's image folder: paths are relative to the metadata file.

    The split is that of the folder that the file or the photo lies in, else the one in a column ``split``. The class
    is the column ``label`` (or ``class``, ``class_name``, ``category``, or the only other one).
    """

    def recognises(self, path: Path) -> bool:
        """Return True if a folder, or a split's folder in it, has a metadata file."""
        return path.is_dir() and bool(_metadata_files(path))

    def read(self, path: Path, options: DataOptions) -> Dataset:  # noqa: ARG002
        """Return the photos that the metadata files name.

        Raises:
            DataError: as for a list.
        """
        return _dataset(path.resolve().name, path, path, self._rows(path))

    def _rows(self, root: Path) -> Iterator[_Row]:
        for path in _metadata_files(root):
            split_of_file = "" if path.parent == root else path.parent.name
            for line, row in _rows(path, ("file_name",)):
                photo, label = row.get("file_name", "").strip(), row[_label_column(row, line)]
                first = photo.split("/")[0].lower() if "/" in photo else ""
                split = split_of_file or row.get("split", "") or (first if first in SPLIT_NAMES else "")
                yield _Row(path.parent, photo, label, split, line)


def _dataset(name: str, root: Path, source: Path, rows: Iterable[_Row]) -> Dataset:
    """Return the photos of rows, each of which is listed once and exists."""
    paths: dict[Split, dict[str, list[Path]]] = {}
    listed: set[str] = set()
    for folder, *texts, line in rows:
        photo, label, split = (text.strip() for text in texts)
        if not photo or not label:
            raise DataError(f"{line}: expected a path and a label, got {photo!r} and {label!r}")
        if (split or "train").lower() not in SPLIT_NAMES:
            raise DataError(f"{line}: expected split train, val or test, got {split!r:.40}")
        plain = os.path.normpath(folder / photo)
        if plain in listed:
            raise DataError(f"{line}: {photo} is listed twice")
        listed.add(plain)
        paths.setdefault(SPLIT_NAMES[(split or "train").lower()], {}).setdefault(label, []).append(folder / photo)
    if not listed:
        raise DataError(f"{source}: no photos listed")
    if missing := sorted(photo for photo in listed if not Path(photo).is_file()):
        count = f"{len(missing)} of {len(listed)} photos are missing"
        raise DataError(f"{source}: {count}, the first is {missing[0]}")
    return Dataset.from_paths(name, root, paths)


def _metadata_files(root: Path) -> list[Path]:
    """Return the metadata files of a folder, at most one in each: its own, else those of its splits."""
    splits = [folder for folder in subfolders(root) if folder.name.lower() in SPLIT_NAMES]
    files: list[Path] = []
    for folder in (root, *splits):
        in_folder = [folder / name for name in METADATA if (folder / name).is_file()]
        if len(in_folder) > 1:
            raise DataError(f"{folder}: expected one of {' and '.join(METADATA)}, got both; remove one")
        files += in_folder
    return files[:1] if files and files[0].parent == root else files


def _label_column(row: dict[str, str], line: str) -> str:
    """Return the name of the column that holds the class."""
    others = [name for name in row if name not in ("file_name", "split")]
    columns = [name for name in LABEL_COLUMNS if name in row][:1] or others
    if len(columns) != 1:
        raise DataError(f"{line}: expected a column label beside file_name, got {', '.join(others) or 'no other'}")
    return columns[0]


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the lines of a CSV or JSONL file, as (file and line for messages, values by column).

    Raises:
        DataError: not text, not of that form, or a CSV without these columns.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(text, path, columns)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected an object with {columns[0]} and label")
        yield f"{path}, line {number}", {key: str(value) for key, value in row.items() if isinstance(value, str | int)}


def _csv_rows(text: str, path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        if not set(columns) <= set(header):
            form = "path,label[,split]" if "path" in columns else "file_name,label"
            raise DataError(f"{path}: expected the header {form}, got {','.join(header)!r:.80}")
        reader.fieldnames = header
        for row in reader:
            values = {key: value for key, value in row.items() if isinstance(value, str)}
            yield f"{path}, line {reader.line_num}", values
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
