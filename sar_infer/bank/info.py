"""Facts about a class beside its name and row, and how a bank file stores them.

In a file, classes that are alike stand together, as ranges of rows: a hundred thousand classes that came in one step,
and differ from plain ones in nothing else, are one short entry.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.errors import BankError
from sar_infer.storage.strict_json import build

_ROWS = "rows"


@dataclass(frozen=True)
class ClassInfo:
    """The differences of a class from a plain class of the bundle.

    Attributes:
        phrases: The texts that were embedded and averaged on the sphere; () is the name itself.
        aliases: Other names of the class, which find it and take its row.
        background: The class takes part in the softmax, and is never an answer.
        threshold: Least score, 0..1, that counts as an answer.
        added: UTC time in ISO form when it came, or got its present row, at run time; None for the bundle's own.

    Raises:
        BankError: a phrase or an alias is empty, no text, or has a control character, or the threshold is out of range.
    """

    phrases: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    background: bool = False
    threshold: float | None = None
    added: str | None = None

    def __post_init__(self) -> None:
        for label, texts in (("phrase", self.phrases), ("alias", self.aliases)):
            for text in texts:
                check_text(label, text)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise BankError(f"expected a threshold of 0..1, got {self.threshold}")


PLAIN = ClassInfo()
"""A class of the bundle of which nothing is known but name and row."""
Ranges = tuple[tuple[int, int], ...]
"""Pairs of the first row of a range and the row after its last."""


def check_text(label: str, text: str) -> None:
    """Raise BankError if a text is empty, has a control character, or has half a surrogate pair, which no file holds.

    Args:
        label: What the message calls the text.
        text: A class name, a phrase or an alias.
    """
    if not text.strip():
        raise BankError(f"a class has an empty {label}")
    kinds = () if text.isprintable() else {unicodedata.category(character) for character in text}
    if "Cc" in kinds:
        raise BankError(f"{label} {text!r:.80} has a control character")
    if "Cs" in kinds:
        raise BankError(f"{label} {text!r:.80} is not text in UTF-8")


def sparse(value: Any) -> Any:
    """Return a value for JSON; of dataclasses, also of those in it, the fields that differ from their defaults."""
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return [sparse(item) for item in value]
    if isinstance(value, Mapping):
        return {key: sparse(item) for key, item in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    result: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if item != default:
            result[field.name] = sparse(item)
    return result


def info_to_json(info: Mapping[int, ClassInfo]) -> list[dict[str, Any]]:
    """Return a JSON object for each distinct info, with the rows that have it, in the order of their first rows."""
    rows_by_item: dict[ClassInfo, list[int]] = {}
    for row, item in info.items():
        rows_by_item.setdefault(item, []).append(row)
    groups = [{_ROWS: ranges_of(rows), **sparse(item)} for item, rows in rows_by_item.items()]
    return sorted(groups, key=lambda group: group[_ROWS][0])


def info_from_json(content: Any, count: int) -> dict[int, ClassInfo]:
    """Return class info by row.

    Args:
        content: Parsed JSON, as ``info_to_json`` writes it.
        count: Number of rows.

    Raises:
        BankError: A row is out of range.
        BundleError: A field is missing, unknown or of another type.
    """
    info: dict[int, ClassInfo] = {}
    for number, group in enumerate(content):
        source = f"info[{number}]"
        ranges = build(tuple[tuple[int, int], ...], group.get(_ROWS), f"{source}.{_ROWS}")
        item = build(ClassInfo, {key: value for key, value in group.items() if key != _ROWS}, source)
        for start, stop in ranges:
            if not 0 <= start < stop <= count:
                raise BankError(f"{source}: rows {start} to {stop} are not in the bank of {count}")
            info.update(dict.fromkeys(range(start, stop), item))
    return info


def ranges_of(rows: npt.ArrayLike) -> Ranges:
    """Return some rows, in any order, as ranges."""
    positions = np.sort(np.asarray(rows, dtype=np.int64))
    if not positions.size:
        return ()
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    starts, ends = positions[[0, *breaks]], positions[[*(breaks - 1), -1]] + 1
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))
