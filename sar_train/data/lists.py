"""Images listed one per line in a CSV or JSONL file: ``path``, ``label`` and, optionally, ``split``.

The ``metadata.csv`` or ``metadata.jsonl`` of Hugging Face's image folders is such a list too; its path is called
``file_name``, and it may lie in each split's folder.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from sar_train.data.folder import SPLIT_FOLDERS, FoundImages, subfolders
from sar_train.data.images import Split
from sar_train.errors import DataError

LIST_SUFFIXES = (".csv", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")
LABEL_COLUMNS = ("label", "class", "class_name", "category")
_Row = tuple[int, dict[str, str]]


def find_in_list(path: Path, *, whole: bool = False) -> FoundImages:
    """Find the images that a list names.

    Args:
        path: a CSV with the header ``path,label`` or ``path,label,split``, or a JSONL file with objects of these names.
            Images are relative to it; labels are class names; splits are train, val and test.
        whole: True for a target of evaluation, which may do without the split train.

    Raises:
        DataError: not there, not text, a bad line (its number is named), images that are missing, or none to train on.
    """
    found = _ListedImages(path)
    for line, row in read_rows(path, ("path", "label")):
        found.add(path.parent, row.get("path", ""), row.get("label", ""), row.get("split", ""), f"{path}, line {line}")
    return found.images(path.stem, path.parent, whole=whole)


def has_metadata(root: Path) -> bool:
    """Return True if a folder, or a split's folder in it, has a metadata file of Hugging Face's image folders."""
    return bool(_metadata_files(root))


def find_in_metadata(root: Path, *, whole: bool = False) -> FoundImages:
    """Find the images that the metadata files of an image folder name.

    Args:
        root: the folder. Paths are relative to the metadata file; the split is that of the folder that the file or the
            image lies in, else the one in a column ``split``. The class is the column ``label`` (or ``class``,
            ``class_name``, ``category``, or the only other one).
        whole: as for `find_in_list`.

    Raises:
        DataError: as for `find_in_list`.
    """
    found = _ListedImages(root)
    for path in _metadata_files(root):
        of_file = "" if path.parent == root else path.parent.name
        for line, row in read_rows(path, ("file_name",)):
            where = f"{path}, line {line}"
            label = _label_column(row, where)
            photo = row.get("file_name", "").strip()
            first = photo.split("/")[0].lower() if "/" in photo else ""
            split = of_file or row.get("split", "") or (first if first in SPLIT_FOLDERS else "")
            found.add(path.parent, photo, row[label], split, where)
    return found.images(root.resolve().name, root, whole=whole)


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    """Yield (line number, values by column) of a CSV with at least these columns, or of a JSONL file.

    Raises:
        DataError: not there, not text, or not of that form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    return _csv_rows(text, path, columns) if path.suffix.lower() == ".csv" else _json_rows(text, path, columns)


class _ListedImages:
    """Images by split and class, each once."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._splits: dict[Split, dict[str, list[Path]]] = {}
        self._seen: set[str] = set()

    def add(self, folder: Path, photo: str, label: str, split: str, where: str) -> None:
        photo, label, split = photo.strip(), label.strip(), split.strip()
        if not photo or not label:
            raise DataError(f"{where}: expected a path and a label, got {photo!r} and {label!r}")
        place = SPLIT_FOLDERS.get((split or "train").lower())
        if place is None:
            raise DataError(f"{where}: expected split train, val or test, got {split!r:.40}")
        path, plain = folder / photo, os.path.normpath(folder / photo)
        if plain in self._seen:
            raise DataError(f"{where}: {photo} is listed twice")
        self._seen.add(plain)
        self._splits.setdefault(place, {}).setdefault(label, []).append(path)

    def images(self, name: str, root: Path, *, whole: bool) -> FoundImages:
        if not self._seen:
            raise DataError(f"{self._source}: no photos listed")
        missing = sorted(photo for photo in self._seen if not Path(photo).is_file())
        if missing:
            count = f"{len(missing)} of {len(self._seen)} photos are missing"
            raise DataError(f"{self._source}: {count}, the first is {missing[0]}")
        if "train" not in self._splits and not whole:
            raise DataError(f"{self._source}: no photo has the split train")
        return FoundImages(name, root, self._splits)


def _metadata_files(root: Path) -> list[Path]:
    """Return the metadata files of a folder, at most one in each place: its own, else those of its splits."""
    places = [root, *(folder for folder in subfolders(root) if folder.name.lower() in SPLIT_FOLDERS)]
    of_place = [[place / name for name in METADATA if (place / name).is_file()] for place in places]
    twice = next((files for files in of_place if len(files) > 1), None)
    if twice:
        raise DataError(f"{twice[0].parent}: expected one of {' and '.join(METADATA)}, got both; remove one")
    files = [file for found in of_place for file in found]
    return files[:1] if files and files[0].parent == root else files


def _label_column(row: dict[str, str], where: str) -> str:
    for name in LABEL_COLUMNS:
        if name in row:
            return name
    others = [name for name in row if name not in ("file_name", "split")]
    if len(others) != 1:
        raise DataError(f"{where}: expected a column label beside file_name, got {', '.join(others) or 'no other'}")
    return others[0]


def _csv_rows(text: str, path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        if not set(columns) <= set(header):
            form = "path,label[,split]" if "path" in columns else "file_name,label"
            raise DataError(f"{path}: expected the header {form}, got {','.join(header)!r:.80}")
        reader.fieldnames = header
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if isinstance(value, str)}
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _json_rows(text: str, path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected an object with {columns[0]} and label")
        yield number, {key: str(value) for key, value in row.items() if isinstance(value, str | int)}
