"""Photos listed one per line in a CSV or JSONL file: ``path``, ``label`` and, optionally, ``split``.

The ``metadata.csv`` or ``metadata.jsonl`` of Hugging Face's image folders is such a list too; its path is called
``file_name``, and it may lie in each split's folder.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

from sar_train.data.dataset import DataOptions, Dataset, Split
from sar_train.data.readers.base import SPLIT_NAMES, Reader, entries, lines_of, readers
from sar_train.errors import DataError

LIST_SUFFIXES = (".csv", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")
LABEL_COLUMNS = ("label", "class", "class_name", "category")


@readers.register("list")
class PhotoList(Reader):
    """A list, or a folder with a metadata file in it or in each of its splits' folders.

    A CSV has a header, a line of a JSONL file is an object. Paths are relative to the list. The class is the column
    ``label`` (or ``class``, ``class_name``, ``category``, or the only other one). The split is that of the folder that
    a metadata file lies in, else the column ``split``, else the folder of splits that a photo of a metadata file lies
    in, else train.
    """

    words = "a list of paths and classes"

    def recognises(self, path: Path) -> bool:
        """Return True for a file with the suffix ``.csv`` or ``.jsonl``, and for a folder with a metadata file."""
        return path.suffix.lower() in LIST_SUFFIXES if path.is_file() else bool(_metadata_files(path))

    def read(self, path: Path, options: DataOptions) -> Dataset:  # noqa: ARG002
        """Return the photos that the lists name.

        Raises:
            DataError: not text, a bad line (its number is named), or photos that are missing.
        """
        root, name = (path, path.resolve().name) if path.is_dir() else (path.parent, path.stem)
        paths: dict[Split, dict[str, list[Path]]] = {}
        listed: set[str] = set()
        for file in _metadata_files(path) if path.is_dir() else [path]:
            column = "file_name" if file.name in METADATA else "path"
            of_file = "" if file.parent == root else file.parent.name
            for line, row in _rows(file, column):
                others = [name for name in row if name not in (column, "split")]
                labels = [name for name in LABEL_COLUMNS if name in row][:1] or others
                if len(labels) != 1:
                    raise DataError(
                        f"{line}: expected a column label next to {column}, got {', '.join(others) or 'no other'}"
                    )
                photo, label = row.get(column, "").strip(), row[labels[0]].strip()
                if not photo or not label:
                    raise DataError(f"{line}: expected a path and a label, got {photo!r} and {label!r}")
                first = photo.partition("/")[0] if column == "file_name" else ""
                split = of_file or row.get("split", "").strip() or (first if first.lower() in SPLIT_NAMES else "train")
                if split.lower() not in SPLIT_NAMES:
                    raise DataError(f"{line}: expected split train, val or test, got {split!r:.40}")
                plain = os.path.normpath(file.parent / photo)
                if plain in listed:
                    raise DataError(f"{line}: {photo} is listed twice")
                listed.add(plain)
                paths.setdefault(SPLIT_NAMES[split.lower()], {}).setdefault(label, []).append(file.parent / photo)
        if not listed:
            raise DataError(f"{path}: no photos listed")
        if missing := sorted(photo for photo in listed if not Path(photo).is_file()):
            count = f"{len(missing)} of {len(listed)} photos are missing"
            raise DataError(f"{path}: {count}, the first is {missing[0]}")
        return Dataset.from_paths(name, root, paths)


def _metadata_files(root: Path) -> list[Path]:
    """Return the metadata files of a folder, at most one in each: its own, else those of its splits."""
    files: list[Path] = []
    for folder in (root, *(root / name for name in entries(root)[0] if name.lower() in SPLIT_NAMES)):
        in_folder = [folder / name for name in METADATA if (folder / name).is_file()]
        if len(in_folder) > 1:
            raise DataError(f"{folder}: expected one of {' and '.join(METADATA)}, got both; remove one")
        files += in_folder
    return files[:1] if files and files[0].parent == root else files


def _rows(path: Path, column: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the lines of a CSV or JSONL file, as (file and line for messages, values by column).

    Raises:
        DataError: not text, not of that form, or a CSV without the column of paths.
    """
    lines = lines_of(path)
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader((f"{text}\n" for _, text in lines), restval="")
        try:
            reader.fieldnames = header = [name.strip() for name in reader.fieldnames or ()]
            if column not in header:
                raise DataError(f"{path}: expected the header {column},label, got {','.join(header)!r:.80}")
            for row in reader:
                number = lines[reader.line_num - 1][0]
                yield f"{path}, line {number}", {name: text for name, text in row.items() if isinstance(text, str)}
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
        return
    for number, line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected an object with {column} and label")
        yield (
            f"{path}, line {number}",
            {name: str(value) for name, value in row.items() if isinstance(value, str | int)},
        )
