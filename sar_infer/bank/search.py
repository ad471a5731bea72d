"""Finding classes: by name or alias, however it is spelled, and by rows, exactly, in a fixed amount of memory."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.bank.table import Block, Table
from sar_infer.errors import BankError, ClassNameError
from sar_infer.text.names import name_key

_CELLS = 32_768 * 256
"""Products that are held at once: 32 MiB."""
_ROWS = 256
_MOST_COMPARED = 20_000
"""Number of names among which similar spellings are searched; a comparison takes some microseconds."""


class Index(Mapping[str, int]):
    """Places by exact name."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __getitem__(self, name: str) -> int:
        for slot in self._table.slots_named(name_key(name)):
            if self._table.name(slot) == name:
                return int(self._table.positions([slot])[0])
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.names)

    def __len__(self) -> int:
        return len(self._table)


class Lookup:
    """Places by name and alias, without regard to case and space.

    Args:
        table: The classes. Names of two may differ in case or space alone; then the exact spelling decides.
        aliases: Slots by the ``name_key`` of further names.
    """

    def __init__(self, table: Table, aliases: Mapping[str, int] | None = None) -> None:
        self._table, self._aliases = table, aliases or {}

    def names(self, text: str) -> list[int]:
        """Return the positions, rising, of all classes whose names are equal to this one up to case and space."""
        slots = self._table.slots_named(name_key(text))
        return [self._position(slot) for slot in slots]

    def name(self, text: str) -> int | None:
        """Return the position of the class with this name; of names that differ in case or space alone, the last."""
        positions = self.names(text)
        return next(
            (position for position in positions if self._table.names[position] == text),
            positions[-1] if positions else None,
        )

    def alias(self, text: str) -> int | None:
        """Return the position of the class that has this alias."""
        slot = self._aliases.get(name_key(text))
        return None if slot is None else self._position(slot)

    def get(self, text: str) -> int | None:
        """Return the position of the class with this name or alias."""
        position = self.name(text)
        return self.alias(text) if position is None else position

    def find(self, text: str) -> int:
        """Return the position of the class with this name or alias.

        Raises:
            ClassNameError: There is none, with similar spellings; or there are several that differ in case or space.
        """
        position = self.get(text)
        if position is None:
            raise ClassNameError(self.missing(text))
        alike = [self._table.names[other] for other in self.names(text)]
        if len(alike) > 1 and text not in alike:
            raise ClassNameError(
                f"class name {text!r:.80} stands for {' and '.join(map(repr, alike))}; spell it exactly"
            )
        return position

    def missing(self, text: str, *, hint: bool = True) -> str:
        """Say that no class has this name; with ``hint``, also which names are spelled alike."""
        near = self.near(text) if hint else []
        meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        return f"no class {text!r:.80} in the bank{meant}"

    def near(self, text: str, most: int = 3) -> list[str]:
        """Return names of classes spelled alike, the nearest first; of a large bank, those that start alike."""
        key = name_key(text)
        keys = [
            other
            for other in (*self._table.keys(), *self._aliases)
            if abs(len(other) - len(key)) <= max(3, len(key) // 3)
        ]
        if len(keys) > _MOST_COMPARED:
            keys = [other for other in keys if other[:2] == key[:2]][:_MOST_COMPARED]
        alike = difflib.get_close_matches(key, keys, n=most, cutoff=0.6)
        return list(
            dict.fromkeys(self._table.names[position] for each in alike if (position := self.get(each)) is not None)
        )

    def _position(self, slot: int) -> int:
        return int(self._table.positions([slot])[0])


class Classes(Protocol):
    """Classes that can be searched: a bank, or any state of one."""

    @property
    def lookup(self) -> Lookup: ...  # noqa: D102
    @property
    def table(self) -> Table: ...  # noqa: D102


def find(bank: Classes, text: str) -> int:
    """Return the position of the class with this name or alias, in any case and spacing.

    Raises:
        ClassNameError: There is none, with similar spellings; or there are several that differ in case or space.
    """
    return bank.lookup.find(text)


def nearest(bank: Classes, rows: Floats, k: int) -> tuple[Indices, Floats]:
    """Return the ``k`` classes of a bank with the largest cosines, by brute force; see ``nearest_positions``."""
    return nearest_positions(bank.table, rows, k)


def nearest_positions(table: Table, rows: Floats, k: int) -> tuple[Indices, Floats]:
    """Return the ``k`` classes with the largest cosines, by brute force.

    Args:
        table: C classes.
        rows: (N, D) float32, unit rows.
        k: Number of classes, at most C.

    Returns:
        Places (N, k) and their cosines (N, k), the largest first, ties in the table's order.

    Raises:
        BankError: An embedding is not finite.
    """
    count = max(0, min(k, len(table)))
    positions = np.empty((len(rows), count), dtype=np.intp)
    best = np.empty((len(rows), count), dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        piece = slice(start, start + _ROWS)
        positions[piece], best[piece] = _nearest(table, rows[piece], count)
    return positions, best


def nearest_rows(embeddings: Floats, rows: Floats, k: int) -> tuple[Indices, Floats]:
    """Return the same as ``nearest_positions``, among unit rows (C, D)."""
    return nearest_positions(Table((Block(range(len(embeddings)), embeddings),)), rows, k)  # type: ignore[arg-type]


def at_even_steps(count: int, most: int) -> Indices:
    """Return up to ``most`` different positions of ``count``, from the first to the last."""
    steps = np.linspace(0, count - 1, min(count, most)).astype(np.intp)
    return np.concatenate([steps[:1], steps[1:][np.diff(steps) > 0]])


def _nearest(table: Table, rows: Floats, count: int) -> tuple[Indices, Floats]:
    positions = np.empty((len(rows), 0), dtype=np.intp)
    best = np.empty((len(rows), 0), dtype=np.float32)
    for start, similar in _finite(table.products(rows, _CELLS)):
        columns = np.arange(similar.shape[1])
        if 0 < count < len(columns):  # drop columns that no row has among its best before sorting
            edge = np.partition(similar, -count, axis=1)[:, -count, np.newaxis]
            columns = np.flatnonzero((similar >= edge).any(axis=0))
        here = np.broadcast_to(start + columns, (len(rows), len(columns)))
        best, positions = np.hstack([best, similar[:, columns]]), np.hstack([positions, here])
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best, positions = np.take_along_axis(best, order, axis=1), np.take_along_axis(positions, order, axis=1)
    return positions, best


def _finite(products: Iterator[tuple[int, Floats]]) -> Iterator[tuple[int, Floats]]:
    """Yield the products; raise BankError if one is no number: rows of a mapped bank are not checked when loaded."""
    with np.errstate(all="ignore"):
        for start, similar in products:
            if not np.isfinite(similar.max(initial=0)):
                raise BankError("an embedding is no unit row; the bank is damaged: sar-bank verify BANK_FILE")
            yield start, similar
