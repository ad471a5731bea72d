"""Lists of photos with the class of each: CSV that ``sar-bank suggest`` writes and ``sar-bank add --photos`` reads.

The columns are ``class``, ``photo`` and ``group``. A row without a class is not used, so that a list can be filled in
bit by bit; ``group`` is for the reader alone, and any further column too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from sar_infer.errors import InputError, WriteError, reason_of
from sar_infer.storage.files import write_atomically
from sar_infer.text.names import name_key

SUFFIX = ".csv"
CLASS, PHOTO, GROUP = COLUMNS = ("class", "photo", "group")


def write_list(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write rows of class, photo and group, whole or not at all.

    Raises:
        WriteError: The file cannot be written.
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows])
    try:
        write_atomically(path, [stream.getvalue().encode()])
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from None


def is_list(path: str) -> bool:
    """Return True for a file of this kind, by its suffix."""
    return Path(path).suffix.lower() == SUFFIX and Path(path).is_file()


def read_list(path: Path) -> Mapping[str, list[str]]:
    """Return image paths by class; those that are not absolute are relative to the list.

    Raises:
        InputError: The file cannot be read, lacks a column, names no class, or names a photo that is not there.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {reason_of(error)}") from None
    paths, spellings = dict[str, list[str]](), dict[str, str]()
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if missing := [name for name in (CLASS, PHOTO) if name not in (reader.fieldnames or ())]:
        raise InputError(f"{path}: no column {missing[0]!r}; expected a list with the columns class and photo")
    try:
        for row in reader:
            name, photo = ((row[column] or "").strip() for column in (CLASS, PHOTO))
            if not name:
                continue
            image_path = path.parent / photo
            if not photo or not image_path.is_file():
                raise InputError(f"{path}: line {reader.line_num}: {photo!r:.200} is no file")
            paths.setdefault(spellings.setdefault(name_key(name), name), []).append(str(image_path))
    except (csv.Error, OSError, ValueError) as error:
        raise InputError(f"{path}: line {reader.line_num}: {reason_of(error)}") from None
    if not paths:
        raise InputError(f"{path}: names no class; write one beside each photo, in the column class")
    return paths
