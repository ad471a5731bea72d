"""Finding classes: by name or alias, however it is spelled, and by rows, exactly, in a fixed amount of memory."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.bank.info import ClassInfo
from sar_infer.errors import BankError, ClassNameError
from sar_infer.storage.packed_names import Hashes, PackedNames
from sar_infer.text.names import name_key, name_keys

if TYPE_CHECKING:
    from sar_infer.bank.class_bank import ClassBank

_CLASSES, _ROWS = 32_768, 256
"""Sides of the largest block of similarities: 32 MiB."""
_MOST_COMPARED = 20_000
"""Number of names among which similar spellings are searched; a comparison takes some microseconds."""


class Lookup:
    """Rows by name and alias, without regard to case and space.

    Args:
        names: The names of a bank's classes. Two may differ in case or space alone; then the exact spelling decides.
        info: What is known of them, sparse.

    Raises:
        BankError: an alias stands for another class already.
    """

    def __init__(self, names: Sequence[str], info: Mapping[str, ClassInfo]) -> None:
        self._names = PackedNames.of(names)
        self._hashes = Hashes(map(name_keys, self._names.blocks()))
        self._aliases: dict[str, int] = {}
        for name, item in info.items():
            owner = self.name(name) if item.aliases else None
            if owner is not None:
                for alias in item.aliases:
                    self._add_alias(alias, owner)

    def name(self, text: str) -> int | None:
        """Return the row of the class with this name; of names that differ in case or space alone, the last."""
        rows = self.names(text)
        return next((row for row in rows if self._names[row] == text), rows[-1] if rows else None)

    def names(self, text: str) -> list[int]:
        """Return the rows, rising, of all classes whose names are equal to this one up to case and space."""
        key = name_key(text)
        return [row for row in self._hashes.candidates(key) if name_key(self._names[row]) == key]

    def alias(self, text: str) -> int | None:
        """Return the row of the class that has this alias."""
        return self._aliases.get(name_key(text))

    def get(self, text: str) -> int | None:
        """Return the row of the class with this name or alias."""
        row = self.name(text)
        return self.alias(text) if row is None else row

    def find(self, text: str) -> int:
        """Return the row of the class with this name or alias.

        Raises:
            ClassNameError: there is none, with similar spellings; or there are several that differ in case or space.
        """
        row = self.get(text)
        if row is None:
            near = self.near(text)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ClassNameError(f"no class {text!r:.80} in the bank{hint}")
        alike = [self._names[other] for other in self.names(text)]
        if len(alike) > 1 and text not in alike:
            raise ClassNameError(
                f"class name {text!r:.80} stands for {' and '.join(map(repr, alike))}; spell it exactly"
            )
        return row

    def near(self, text: str, most: int = 3) -> list[str]:
        """Return names and aliases spelled alike, the nearest first; of a large bank, those that start alike."""
        key = name_key(text)
        keys_in_order = itertools.chain.from_iterable(map(name_keys, self._names.blocks()))
        known = {**self._aliases, **{key: row for row, key in enumerate(keys_in_order)}}
        keys = [other for other in known if abs(len(other) - len(key)) <= max(3, len(key) // 3)]
        if len(keys) > _MOST_COMPARED:
            keys = [other for other in keys if other[:2] == key[:2]][:_MOST_COMPARED]
        found = difflib.get_close_matches(key, keys, n=most, cutoff=0.6)
        return list(dict.fromkeys(self._names[known[other]] for other in found))

    def _add_alias(self, alias: str, row: int) -> None:
        key = name_key(alias)
        owner = next(reversed(self.names(alias)), self._aliases.get(key))
        if owner == row:
            raise BankError(
                f"alias {alias!r} already stands for class {self._names[row]!r} itself; case and space do not count"
            )
        if owner is not None:
            name, other = self._names[row], self._names[owner]
            raise BankError(f"alias {alias!r} of class {name!r} already stands for class {other!r}")
        self._aliases[key] = row


def find(bank: ClassBank, text: str) -> int:
    """Return the row of the class with this name or alias, in any case and spacing.

    Raises:
        ClassNameError: there is none, with similar spellings; or there are several that differ in case or space.
    """
    return bank.lookup.find(text)


def nearest(bank: ClassBank, rows: Floats, k: int) -> tuple[Indices, Floats]:
    """Return the ``k`` classes with the largest cosines, by brute force over blocks of the bank.

    Args:
        bank: C classes.
        rows: (N, D) float32, unit rows.
        k: Number of classes, at most C.

    Returns:
        Rows of the bank (N, k) and their cosines (N, k), the largest first, ties in the bank's order.

    Raises:
        BankError: an embedding is not finite.
    """
    return nearest_rows(bank.embeddings, rows, k)


def nearest_rows(embeddings: Floats, rows: Floats, k: int) -> tuple[Indices, Floats]:
    """Return the same as ``nearest``, among unit rows (C, D)."""
    count = max(0, min(k, len(embeddings)))
    found = np.empty((len(rows), count), dtype=np.intp)
    best = np.empty((len(rows), count), dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        found[part], best[part] = _nearest(embeddings, rows[part], count)
    return found, best


def at_even_steps(count: int, most: int) -> Indices:
    """Return up to ``most`` different places of ``count``, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))


def _nearest(embeddings: Floats, rows: Floats, count: int) -> tuple[Indices, Floats]:
    found = np.empty((len(rows), 0), dtype=np.intp)
    best = np.empty((len(rows), 0), dtype=np.float32)
    for start in range(0, len(embeddings), _CLASSES):
        with np.errstate(all="ignore"):
            similar = rows @ embeddings[start : start + _CLASSES].T
        if not np.isfinite(similar.max(initial=0)):  # the rows of a mapped bank are not checked when it is loaded
            raise BankError("an embedding is no unit row; the bank is damaged: sar-bank verify BANK_FILE")
        columns = np.arange(similar.shape[1])
        if 0 < count < len(columns):  # drop columns that no row has among its best before sorting
            edge = np.partition(similar, -count, axis=1)[:, -count, np.newaxis]
            columns = np.flatnonzero((similar >= edge).any(axis=0))
        places = np.broadcast_to(start + columns, (len(rows), len(columns)))
        best, found = np.hstack([best, similar[:, columns]]), np.hstack([found, places])
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best, found = np.take_along_axis(best, order, axis=1), np.take_along_axis(found, order, axis=1)
    return found, best
