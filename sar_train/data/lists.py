"""Photos named one a line in a CSV or JSONL file: ``path``, ``label`` and, if wanted, ``split``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from sar_train.data.folder import assemble
from sar_train.data.photos import SPLITS, PhotoDataset, Split
from sar_train.errors import DataError

SUFFIXES = (".csv", ".jsonl")


def load_list(path: Path, shots: int, seed: int) -> PhotoDataset:
    """Open a list.

    Args:
        path: a CSV with the header ``path,label`` or ``path,label,split``, or a JSONL file with objects of these names.
            Photos are relative to it; labels are class names; splits are train, val and test. Without splits, photos
            are held out as for a folder.
        shots: K, 0 for as many as there are.
        seed: decides which photos are held out.

    Raises:
        DataError: not there, not text, a bad line (its number is named), photos that are missing, or a class without a
            training photo.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    splits: dict[Split, dict[str, list[Path]]] = {}
    seen: set[Path] = set()
    for line, row in _csv_rows(text, path) if path.suffix.lower() == ".csv" else _json_rows(text, path):
        photo, label, split = _read(row, f"{path}, line {line}")
        if path.parent / photo in seen:
            raise DataError(f"{path}, line {line}: {photo} is listed twice")
        seen.add(path.parent / photo)
        splits.setdefault(split, {}).setdefault(label, []).append(path.parent / photo)
    if not seen:
        raise DataError(f"{path}: no photos listed")
    missing = sorted(photo for photo in seen if not photo.is_file())
    if missing:
        raise DataError(f"{path}: {len(missing)} of {len(seen)} photos are missing, the first is {missing[0]}")
    if "train" not in splits:
        raise DataError(f"{path}: no photo has the split train")
    return assemble(path.stem, path.parent, splits, shots, seed)


def _read(row: dict[str, str], where: str) -> tuple[str, str, Split]:
    photo, label, name = (row.get(key, "").strip() for key in ("path", "label", "split"))
    if not photo or not label:
        raise DataError(f"{where}: expected a path and a label, got {photo!r} and {label!r}")
    split = next((s for s in SPLITS if s == (name or "train")), None)
    if split is None:
        raise DataError(f"{where}: expected split train, val or test, got {name!r:.40}")
    return photo, label, split


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        if not {"path", "label"} <= set(header):
            raise DataError(f"{path}: expected the header path,label[,split], got {','.join(header)!r:.80}")
        reader.fieldnames = header
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if isinstance(value, str)}
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected an object with path and label")
        yield number, {key: str(value) for key, value in row.items() if isinstance(value, str | int)}
