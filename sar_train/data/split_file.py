"""Split files as CoOp publishes them: ``train``, ``val`` and ``test``, each a list of ``[path, label, class name]``."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from sar_train.data.photos import SPLITS, Split
from sar_train.errors import DataError

Rows = dict[Split, list[tuple[str, int]]]
"""(path below the folder of the photos, label) by split."""


def read_split(path: Path) -> tuple[tuple[str, ...], Rows]:
    """Class names by label, and (relative path, label) of every photo by split.

    Raises:
        DataError: not JSON of the expected form, a path that leaves the folder, labels with gaps, or a label with
            two names.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict) or any(not isinstance(content.get(split), list) for split in SPLITS):
        raise DataError(f"{path}: expected an object with the lists train, val and test")
    names: dict[int, str] = {}
    rows: Rows = {}
    for split in SPLITS:
        rows[split] = [_read_row(row, names, f"{path}: {split}[{i}]") for i, row in enumerate(content[split])]
    trained = {label for _, label in rows["train"]}
    if not trained or trained != set(range(len(names))):
        raise DataError(
            f"{path}: expected training photos for labels 0 to C - 1, got {len(trained)} labels of {len(names)}"
        )
    return tuple(names[label] for label in range(len(names))), rows


def below(path: str, where: str) -> str:
    """The path itself, once it is sure to stay below the folder it is relative to.

    Raises:
        DataError: absolute, or with ``..`` in it.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise DataError(f"{where}: expected a path below the image folder, got {path!r:.80}")
    return path


def _read_row(row: Any, names: dict[int, str], where: str) -> tuple[str, int]:
    if not isinstance(row, list) or [type(value) for value in row] != [str, int, str]:
        raise DataError(f"{where}: expected [path, label, class name], got {row!r:.80}")
    path, label, name = row
    if names.setdefault(label, name) != name:
        raise DataError(f"{where}: label {label} has two names, {names[label]!r} and {name!r}")
    return below(path, where), label
