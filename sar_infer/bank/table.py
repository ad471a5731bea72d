"""Class names with their rows: blocks that are never copied, what differs from them, and finding classes in them.

A *slot* counts through all blocks and means the same class for good; a *position* counts the classes that are there, in
order. A change of one class of a million costs one class, since blocks are shared by all tables that are made of them.
"""

from __future__ import annotations

import bisect
import dataclasses
import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices, products
from sar_infer.errors import BankError, ClassNameError
from sar_infer.text.names import name_key, name_keys

_NONE: Indices = np.empty(0, np.intp)
_CELLS = 2**22
"""Numbers of products that are computed at once, by default: 16 MiB."""
_ROWS = 256
_MOST_COMPARED = 20_000
"""Number of names among which similar spellings are searched; a comparison takes some microseconds."""


@dataclass(frozen=True, eq=False)
class Block:
    """Names (B) with unit rows (B, D); what is derived from them is computed once."""

    names: Sequence[str]
    rows: Floats

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def _keys(self) -> tuple[dict[str, int], dict[str, list[int]]]:
        """Return the last row of each ``name_key``, and all rows of a key that several names share."""
        keys = name_keys(self.names)
        last = dict(zip(keys, range(len(keys)), strict=True))
        shared: dict[str, list[int]] = {}
        if len(last) < len(keys):
            for row, key in enumerate(keys):
                if last[key] != row or key in shared:
                    shared.setdefault(key, []).append(row)
        return last, shared

    def rows_of(self, key: str) -> Sequence[int]:
        """Return the rows, rising, of the names with this ``name_key``."""
        last, shared = self._keys
        return shared.get(key) or ((last[key],) if key in last else ())

    @property
    def spellings(self) -> Iterable[str]:
        """Return the ``name_key`` of every name, each once."""
        return self._keys[0].keys()


@dataclass(frozen=True, eq=False)
class Table:
    """Names with rows.

    Attributes:
        blocks: One or more, end to end.
        removed: Slots, rising, of classes that are not there any more.
        renamed: Names by slot, of classes whose name is not that in the block.
        replaced: Slots, rising, of classes whose row is not that in the block.
        rows: (R, D) the rows of these.
    """

    blocks: tuple[Block, ...]
    removed: Indices = field(default_factory=lambda: _NONE)
    renamed: Mapping[int, str] = field(default_factory=dict)
    replaced: Indices = field(default_factory=lambda: _NONE)
    rows: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))

    @functools.cached_property
    def starts(self) -> list[int]:
        """Return the first slot of each block, and the number of all slots."""
        return [0, *np.cumsum([len(block) for block in self.blocks]).tolist()]

    @property
    def dim(self) -> int:
        """Return D."""
        return int(self.blocks[0].rows.shape[1])

    @property
    def plain(self) -> bool:
        """Return True if this is one block as it is."""
        return len(self.blocks) == 1 and not (len(self.removed) or self.renamed or len(self.replaced))

    def __len__(self) -> int:
        return self.starts[-1] - len(self.removed)

    @functools.cached_property
    def _gaps(self) -> Indices:
        gaps: Indices = self.removed - np.arange(len(self.removed))
        return gaps

    def slots(self, positions: Indices | Sequence[int]) -> Indices:
        """Return the slots of positions (…)."""
        counts: Indices = np.asarray(positions, np.intp)
        return counts + np.searchsorted(self._gaps, counts, side="right") if len(self.removed) else counts

    def positions(self, slots: Indices | Sequence[int]) -> Indices:
        """Return the positions of slots (…) of classes that are there."""
        counts: Indices = np.asarray(slots, np.intp)
        return counts - np.searchsorted(self.removed, counts) if len(self.removed) else counts

    def slot(self, position: int) -> int:
        """Return the slot of a position."""
        return int(self.slots([position])[0])

    def has(self, slot: int) -> bool:
        """Return True if the class of a slot is there."""
        at = bisect.bisect_left(self.removed, slot)
        return not (at < len(self.removed) and self.removed[at] == slot)

    def name(self, slot: int) -> str:
        """Return the name of a slot."""
        if self.renamed and slot in self.renamed:
            return self.renamed[slot]
        block, row = block_of(self.blocks, slot)
        return block.names[row]

    @functools.cached_property
    def names(self) -> Sequence[str]:
        """Return the names of all classes, by position."""
        return self.blocks[0].names if self.plain else Names(self)

    def take(self, positions: Indices | Sequence[int]) -> Floats:
        """Return the rows (…, D) of positions (…), copied."""
        slots = self.slots(positions)
        result = np.empty((*slots.shape, self.dim), np.float32)
        for start, block in zip(self.starts, self.blocks, strict=False):
            inside = (slots >= start) & (slots < start + len(block))
            if inside.any():
                result[inside] = block.rows[slots[inside] - start]
        if len(self.replaced):
            other = among(slots, self.replaced)
            result[other] = self.rows[np.searchsorted(self.replaced, slots[other])]
        return result

    def whole(self) -> Floats:
        """Return all rows (C, D), by position; copied unless they are one block."""
        return self.blocks[0].rows if self.plain else self.take(np.arange(len(self)))

    def products(self, queries: Floats, cells: int = _CELLS) -> Iterator[tuple[int, Floats]]:
        """Yield the first position and the inner products (N, B) of some classes with queries (N, D), in order.

        Args:
            queries: (N, D).
            cells: Number of products at a time, about.
        """
        size, position = max(1, cells // max(1, len(queries))), 0
        for start, block in zip(self.starts, self.blocks, strict=False):
            for first in range(0, len(block), size):
                rows = block.rows[first : first + size]
                block_products = products(queries, rows)
                bounds = (start + first, start + first + len(rows))
                low, high = _between(self.replaced, bounds)
                if low < high:
                    replaced = products(queries, self.rows[low:high])
                    block_products[:, self.replaced[low:high] - bounds[0]] = replaced
                low, high = _between(self.removed, bounds)
                if low < high:
                    left = np.ones(len(rows), np.bool_)
                    left[self.removed[low:high] - bounds[0]] = False
                    block_products = block_products[:, left]
                if block_products.shape[1]:
                    yield position, block_products
                    position += block_products.shape[1]

    def nearest(self, rows: Floats, k: int) -> tuple[Indices, Floats]:
        """Return the positions (N, k) and cosines of the classes nearest to unit rows (N, D), by brute force."""
        count = max(0, min(k, len(self)))
        positions = np.empty((len(rows), count), dtype=np.intp)
        best = np.empty((len(rows), count), dtype=np.float32)
        for start in range(0, len(rows), _ROWS):
            piece = slice(start, start + _ROWS)
            positions[piece], best[piece] = self._nearest(rows[piece], count)
        return positions, best

    def _nearest(self, rows: Floats, count: int) -> tuple[Indices, Floats]:
        positions = np.empty((len(rows), 0), dtype=np.intp)
        best = np.empty((len(rows), 0), dtype=np.float32)
        for start, similar in _finite(self.products(rows, _CELLS)):
            columns = np.arange(similar.shape[1])
            if 0 < count < len(columns):  # drop columns that no row has among its best before sorting
                edge = np.partition(similar, -count, axis=1)[:, -count, np.newaxis]
                columns = np.flatnonzero((similar >= edge).any(axis=0))
            here = np.broadcast_to(start + columns, (len(rows), len(columns)))
            best, positions = np.hstack([best, similar[:, columns]]), np.hstack([positions, here])
            order = np.argsort(-best, axis=1, kind="stable")[:, :count]
            best, positions = np.take_along_axis(best, order, axis=1), np.take_along_axis(positions, order, axis=1)
        return positions, best

    def names_of(self, number: int) -> Sequence[str]:
        """Return the names of the classes of a block that are there."""
        block, start = self.blocks[number], self.starts[number]
        removed = self.removed[slice(*np.searchsorted(self.removed, (start, start + len(block))))]
        if not len(removed) and not self.renamed:
            return block.names
        gone = set(removed.tolist())
        return [self.renamed.get(slot, name) for slot, name in enumerate(block.names, start) if slot not in gone]

    def without(self, slots: Sequence[int]) -> Table:
        """Return this table without some classes that are in it."""
        if not len(slots):
            return self
        gone = np.sort(np.array(slots, np.intp))
        removed, left = np.sort(np.concatenate([self.removed, gone])), ~among(self.replaced, gone)
        renamed = {slot: name for slot, name in self.renamed.items() if slot not in {*slots}} if self.renamed else {}
        return Table(self.blocks, removed, renamed, self.replaced[left], self.rows[left])

    def followed_by(self, block: Block) -> Table:
        """Return this table with a block after its last."""
        blocks = (*self.blocks, block) if len(block) else self.blocks
        return Table(blocks, self.removed, self.renamed, self.replaced, self.rows)

    def with_name(self, slot: int, name: str) -> Table:
        """Return this table with another name of a class."""
        renamed = {other: text for other, text in self.renamed.items() if other != slot}
        block, row = block_of(self.blocks, slot)
        if block.names[row] != name:
            renamed[slot] = name
        return dataclasses.replace(self, renamed=renamed)

    def with_rows(self, slots: Sequence[int], rows: Floats) -> Table:
        """Return this table with other rows (R, D) of R classes; the row in the block is no other row."""
        rows_by_slot = dict(zip(self.replaced.tolist(), self.rows, strict=True)) | dict(zip(slots, rows, strict=True))
        for slot in {*slots}:
            block, row = block_of(self.blocks, slot)
            if np.array_equal(block.rows[row], rows_by_slot[slot]):
                del rows_by_slot[slot]
        replaced = sorted(rows_by_slot)
        together = np.array([rows_by_slot[slot] for slot in replaced], np.float32).reshape(-1, self.dim)
        return dataclasses.replace(self, replaced=np.array(replaced, np.intp), rows=together)

    def slots_named(self, key: str) -> list[int]:
        """Return the slots, rising, of the classes whose ``name_key`` this is."""
        slots = [
            start + row
            for start, block in zip(self.starts, self.blocks, strict=False)
            for row in block.rows_of(key)
            if self.has(start + row) and start + row not in self.renamed
        ]
        if self.renamed:
            slots += [slot for slot in self._renamed_keys.get(key, ()) if self.has(slot)]
            slots.sort()
        return slots

    def slot_named(self, name: str) -> int | None:
        """Return the slot of the class with a name in any spelling; the exact one comes first, else the last."""
        slots = self.slots_named(name_key(name))
        return next((slot for slot in slots if self.name(slot) == name), slots[-1] if slots else None)

    def keys(self) -> Iterator[str]:
        """Yield the ``name_key`` of every class."""
        for block in self.blocks:
            yield from (key for key in block.spellings if self.plain or self.slots_named(key))
        yield from self._renamed_keys

    @functools.cached_property
    def _renamed_keys(self) -> dict[str, list[int]]:
        slots: dict[str, list[int]] = {}
        for slot, key in zip(self.renamed, name_keys([*self.renamed.values()]), strict=True):
            slots.setdefault(key, []).append(slot)
        return slots


def _between(rising: Indices, bounds: tuple[int, int]) -> tuple[int, int]:
    """Return where those of some rising slots begin and end that lie between two slots."""
    if not len(rising):
        return 0, 0
    low, high = np.searchsorted(rising, bounds).tolist()
    return low, high


def block_of(blocks: Iterable[Block], slot: int) -> tuple[Block, int]:
    """Return the block of a slot, and its row there."""
    row = slot
    for block in blocks:
        if row < len(block):
            return block, row
        row -= len(block)
    raise IndexError(f"no slot {slot}")


def among(values: Indices, rising: Indices) -> npt.NDArray[np.bool_]:
    """Return flags of those values (…) that are among others, which rise."""
    if not len(rising):
        return np.zeros(values.shape, np.bool_)
    flags: npt.NDArray[np.bool_] = rising[np.minimum(np.searchsorted(rising, values), len(rising) - 1)] == values
    return flags


class Names(Sequence[str]):
    """The names of a table, by position; equal to a tuple of the same names."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[str]: ...
    def __getitem__(self, position: int | slice) -> str | Sequence[str]:
        if isinstance(position, slice):
            return tuple(self[number] for number in range(*position.indices(len(self))))
        return self._table.name(self._table.slot(range(len(self))[position]))

    def __iter__(self) -> Iterator[str]:
        for number in range(len(self._table.blocks)):
            yield from self._table.names_of(number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple | Names) and len(other) == len(self) and all(map(str.__eq__, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self[:3]))[:-1] + (", …)" if len(self) > 3 else ")")


class Index(Mapping[str, int]):
    """Positions by exact name."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __getitem__(self, name: str) -> int:
        slot = self._table.slot_named(name)
        if slot is None or self._table.name(slot) != name:
            raise KeyError(name)
        return int(self._table.positions([slot])[0])

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.names)

    def __len__(self) -> int:
        return len(self._table)


class Lookup:
    """Positions by name and alias, without regard to case and space.

    Args:
        table: The classes. Names of two may differ in case or space alone; then the exact spelling decides.
        aliases: Slots by the ``name_key`` of further names.
    """

    def __init__(self, table: Table, aliases: Mapping[str, int] | None = None) -> None:
        self._table, self._aliases = table, aliases or {}

    def names(self, text: str) -> list[int]:
        """Return the positions, rising, of all classes whose names are equal to this one up to case and space."""
        return [self._position(slot) for slot in self._table.slots_named(name_key(text))]

    def name(self, text: str) -> int | None:
        """Return the position of the class with this name; of names that differ in case or space alone, the last."""
        slot = self._table.slot_named(text)
        return None if slot is None else self._position(slot)

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


def at_even_steps(count: int, most: int) -> Indices:
    """Return up to ``most`` different positions of ``count``, from the first to the last."""
    steps = np.linspace(0, count - 1, min(count, most)).astype(np.intp)
    return np.concatenate([steps[:1], steps[1:][np.diff(steps) > 0]])


def _finite(products: Iterator[tuple[int, Floats]]) -> Iterator[tuple[int, Floats]]:
    """Yield the products; raise BankError if one is no number: rows of a mapped bank are not checked when loaded."""
    with np.errstate(all="ignore"):
        for start, similar in products:
            if not np.isfinite(similar.max(initial=0)):
                raise BankError("an embedding is no unit row; the bank is damaged: sar-bank verify BANK_FILE")
            yield start, similar
