"""FGVCAircraft's own lists, its published split: ``variants.txt`` and ``images_variant_{train,val,test}.txt``."""

from __future__ import annotations

from pathlib import Path

from sar_train.data.layouts import GUIDE
from sar_train.data.photos import SPLITS
from sar_train.data.split_file import Rows, below
from sar_train.errors import DataError


def read_aircraft(folder: Path) -> tuple[tuple[str, ...], Rows]:
    """Class names, the variants, and (path below ``images``, label) by split.

    Raises:
        DataError: a list is missing or has a bad line (its number is named).
    """
    names = tuple(name for _, name in lines_of(folder / "variants.txt"))
    places = {name: label for label, name in enumerate(names)}
    if len(places) != len(names) or not names:
        raise DataError(f"{folder / 'variants.txt'}: expected one variant a line, each once, got {len(names)} lines")
    rows: Rows = {}
    for split in SPLITS:
        path = folder / f"images_variant_{split}.txt"
        rows[split] = []
        for number, line in lines_of(path):
            photo, _, name = line.partition(" ")
            if name not in places:
                where = f"{path}, line {number}"
                raise DataError(f"{where}: expected a number and a variant of variants.txt, got {line!r:.60}")
            rows[split].append((below(f"{photo}.jpg", f"{path}, line {number}"), places[name]))
    return names, rows


def lines_of(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines of a list that are not empty.

    Raises:
        DataError: it is not there, or not text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: not there; it comes with the dataset, see {GUIDE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
