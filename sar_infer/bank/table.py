"""Class names with their rows: blocks that are never copied, and what differs from them.

A *slot* counts through all blocks and means the same class for good; a *position* counts the classes that are there, in
order. A change of one class of a million costs one class, since blocks are shared by all tables that are made of them.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.text.names import name_keys

_NONE: Indices = np.empty(0, np.intp)
_CELLS = 2**22
"""Numbers of products that are computed at once, by default."""


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

    def row(self, slot: int) -> Floats:
        """Return the row (D,) of a slot."""
        at = int(np.searchsorted(self.replaced, slot))
        if at < len(self.replaced) and self.replaced[at] == slot:
            block, row = Block((), self.rows), at
        else:
            block, row = block_of(self.blocks, slot)
        result: Floats = block.rows[row]
        return result

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
                products: Floats = queries @ rows.T
                bounds = (start + first, start + first + len(rows))
                low, high = np.searchsorted(self.replaced, bounds)
                if low < high:
                    products[:, self.replaced[low:high] - bounds[0]] = queries @ self.rows[low:high].T
                low, high = np.searchsorted(self.removed, bounds)
                if low < high:
                    left = np.ones(len(rows), np.bool_)
                    left[self.removed[low:high] - bounds[0]] = False
                    products = products[:, left]
                if products.shape[1]:
                    yield position, products
                    position += products.shape[1]

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
        removed = np.sort(np.concatenate([self.removed, np.array(slots, np.intp)]))
        return Table(self.blocks, removed, self.renamed, self.replaced, self.rows)

    def followed_by(self, block: Block) -> Table:
        """Return this table with a block after its last."""
        blocks = (*self.blocks, block) if len(block) else self.blocks
        return Table(blocks, self.removed, self.renamed, self.replaced, self.rows)

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
