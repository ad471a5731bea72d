"""Class info as it is stored: classes that are alike stand together, as ranges of rows.

A hundred thousand classes that came in one step, and differ from plain ones in nothing else, are one short entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from sar_infer.bank.info import ClassInfo, sparse
from sar_infer.errors import BankError
from sar_infer.storage.packed_names import PackedNames
from sar_infer.storage.strict_json import build

_ROWS = "rows"
Item = TypeVar("Item", ClassInfo, ClassInfo | None)
Ranges = tuple[tuple[int, int], ...]
"""Pairs of a first row and the one behind the last."""


@dataclass(frozen=True)
class Before:
    """What classes had before a step, by their rows then; None is nothing."""

    rows: Ranges
    info: ClassInfo | None = None


def before(found: Mapping[int, ClassInfo | None]) -> tuple[Before, ...]:
    """The same, by row, put together."""
    return tuple(Before(rows, item) for item, rows in _alike(found).items())


def write(info: Mapping[str, ClassInfo], rows: Mapping[str, int]) -> list[dict[str, Any]]:
    """A JSON object for each kind of class, in the order of their first rows."""
    alike = _alike({rows[name]: item for name, item in info.items()})
    found = [{_ROWS: places, **sparse(item)} for item, places in alike.items()]
    return sorted(found, key=lambda group: group[_ROWS][0])


def read(content: Any, names: PackedNames) -> dict[str, ClassInfo]:
    """Class info by name.

    Args:
        content: Parsed JSON.
        names: Of the bank.

    Raises:
        BankError: not what ``write`` gives, or a row that the bank does not have or that stands twice.
        BundleError: a field is missing, unknown or of another type.
    """
    if not isinstance(content, list) or not all(isinstance(group, dict) for group in content):
        raise BankError("field info: expected a list of objects")
    seen = np.zeros(len(names), dtype=np.bool_)
    info: dict[str, ClassInfo] = {}
    for number, group in enumerate(content):
        source = f"info[{number}]"
        ranges = build(tuple[tuple[int, int], ...], group.get(_ROWS), f"{source}.{_ROWS}")
        item = build(ClassInfo, {key: value for key, value in group.items() if key != _ROWS}, source)
        for start, stop in ranges:
            if not 0 <= start < stop <= len(names) or seen[start:stop].any():
                raise BankError(f"{source}: rows {start} to {stop} are not in the bank of {len(names)}, or stand twice")
            seen[start:stop] = True
            info.update(dict.fromkeys(names[start:stop], item))
    return info


def _alike(found: Mapping[int, Item]) -> dict[Item, Ranges]:
    """The rows of each item."""
    alike: dict[Item, list[int]] = {}
    for row, item in found.items():
        alike.setdefault(item, []).append(row)
    return {item: _ranges(rows) for item, rows in alike.items()}


def _ranges(rows: list[int]) -> Ranges:
    places = np.sort(np.array(rows, dtype=np.int64))
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    starts, ends = places[[0, *breaks]], places[[*(breaks - 1), -1]] + 1
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))
