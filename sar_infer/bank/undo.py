"""Undo records and the stack: what each step of a bank's history keeps to be taken back, and taking it back.

Rows that a step removed or replaced lie on the stack, the latest on top, so that steps can be taken back from the last
one on. Positions are those before the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank.info import PLAIN, ClassInfo, Ranges, ranges_by_item, ranges_of, set_info
from sar_infer.bank.photos import Photos, PhotosBefore, PhotoSet, put_back
from sar_infer.errors import BankError
from sar_infer.storage.packed_names import PackedNames
from sar_infer.storage.tensor_file import Joined

_UNFIT = "its history does not fit its classes; the file was damaged or changed"


@dataclass(frozen=True)
class Before:
    """The info that classes had before a step, by their rows at that time; None if they had none."""

    rows: Ranges
    info: ClassInfo | None = None


@dataclass(frozen=True)
class Undo:
    """How a step is taken back, in this order.

    Attributes:
        appended: Number of classes that the step added at the end; they are dropped.
        removed: Number of rows on top of the stack that go back to their positions.
        replaced: Number of rows below those that take the place of the rows at their positions.
        renamed: Old name by new name.
        lost: Number of names that the step put at the end of ``REMOVED``; they are dropped.
        info: The info that classes had before; it takes the place of what they have.
        photos: How photos are put back, of classes whose photos have changed.
    """

    appended: int = 0
    removed: int = 0
    replaced: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict)
    lost: int = 0
    info: tuple[Before, ...] = ()
    photos: tuple[PhotosBefore, ...] = ()

    @property
    def photo_sets(self) -> int:
        """Return the number of sets of photos that the step has on the stack of photos."""
        return sum(one.appended is None for one in self.photos)

    @property
    def rows(self) -> int:
        """Return the number of rows that the step has on the stack."""
        return self.removed + self.replaced


@dataclass(frozen=True, eq=False)
class Stack:
    """Rows that steps have removed or replaced, the latest at the end.

    Attributes:
        names: The R names that they had.
        rows: (R, D) float32.
        positions: (R,) int64, the rows' former places in the bank.
    """

    names: PackedNames
    rows: Floats
    positions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def empty(cls, dim: int) -> Stack:
        """Return a stack without rows, for rows of ``dim`` numbers."""
        return cls(PackedNames.of(()), np.empty((0, dim), np.float32), np.empty(0, np.int64))

    def __getitem__(self, part: slice) -> Stack:
        return Stack(PackedNames.of(self.names[part]), self.rows[part], self.positions[part])

    def pushed(self, *others: Stack) -> Stack:
        """Return a stack with the rows of others on top."""
        parts = [part for part in (self, *others) if len(part)] or [self]
        if len(parts) == 1:
            return parts[0]
        return Stack(
            PackedNames.chain(part.names for part in parts),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.positions for part in parts]),
        )


@dataclass(frozen=True)
class State:
    """The parts of a bank that steps change, and what they keep to be undone."""

    names: PackedNames
    rows: Floats | Joined
    info: Mapping[str, ClassInfo]
    photos: Photos
    stack: Stack
    photo_stack: tuple[PhotoSet, ...]


def before(items: Mapping[int, ClassInfo | None]) -> tuple[Before, ...]:
    """Return the info that classes had, from the info of each row."""
    return tuple(Before(rows, item) for item, rows in ranges_by_item(items).items())


def undone(state: State, undo: Undo) -> State:
    """Return the state before a step."""
    count, stack = len(state.names) - undo.appended, state.stack
    base, below, sets = len(stack) - undo.rows, len(stack) - undo.removed, len(state.photo_stack) - undo.photo_sets
    if min(count, base, sets) < 0:
        raise BankError(_UNFIT)
    names, rows = _put_back(PackedNames.of(state.names[:count]), state.rows[:count], stack[below:])
    if undo.replaced:
        old = stack[base:below]
        _check_positions(old, len(names))
        rows = replaced(rows, old.positions, old.rows)
    if undo.renamed:
        places = {row: old for new, old in undo.renamed.items() if (row := names.places.get(new)) is not None}
        names = PackedNames.chain(spliced(names, ranges_of([*places]), [places[row] for row in sorted(places)]))
    gone = {*state.names[count:], *undo.renamed} - {*stack[below:].names, *undo.renamed.values()}
    info = {name: item for name, item in state.info.items() if name not in gone}
    _restore_info(info, undo.info, names)
    photos = {undo.renamed.get(name, name): one for name, one in state.photos.items()}
    photos = {name: one for name, one in photos.items() if name not in gone}
    photos = put_back(photos, undo.photos, state.photo_stack[sets:], names)
    return State(names, rows, info, photos, stack[:base], state.photo_stack[:sets])


def replaced(rows: Floats | Joined, places: npt.NDArray[np.int64], new: Floats) -> Joined:
    """Return rows of which those at some places, in any order, are replaced by new ones."""
    return Joined.of(spliced(rows, ranges_of(places), new[np.argsort(places)]))


def spliced(whole: Any, ranges: Ranges, new: Any = None, *, between: bool = False) -> list[Any]:
    """Return the pieces of a sequence of which some places were replaced, or left out, or come between the others.

    Nothing is copied, so that a change of one class of a million costs one class.

    Args:
        whole: Rows or names.
        ranges: The places, rising.
        new: What stands there afterwards, end to end; None leaves out what stands there.
        between: It comes between what is there; ``ranges`` are places in the result.
    """
    pieces, done, taken = [], 0, 0
    for start, stop in ranges:
        first = start - taken if between else start
        pieces.append(whole[done:first])
        if new is not None:
            pieces.append(new[taken : taken + stop - start])
        taken += stop - start
        done = first if between else stop
    return [*pieces, whole[done : len(whole)]]


def _put_back(names: PackedNames, rows: Floats | Joined, gone: Stack) -> tuple[PackedNames, Floats | Joined]:
    """Return names and rows with removed classes back between the others, at the positions that they had."""
    if not len(gone):
        return names, rows
    _check_positions(gone, len(names) + len(gone))
    places = ranges_of(gone.positions)
    together = PackedNames.chain(spliced(names, places, gone.names, between=True))
    return together, Joined.of(spliced(rows, places, gone.rows, between=True))


def _restore_info(info: dict[str, ClassInfo], had: tuple[Before, ...], names: PackedNames) -> None:
    """Write the info that classes had before a step into ``info``; a class is in one group at most."""
    ranges = [(start, stop, group.info) for group in had for start, stop in group.rows]
    if any(not 0 <= start < stop <= len(names) for start, stop, _ in ranges) or (
        sum(stop - start for start, stop, _ in ranges) > len(names)
    ):
        raise BankError(_UNFIT)
    for start, stop, item in ranges:
        for name in names[start:stop]:
            set_info(info, name, item or PLAIN)


def _check_positions(stack: Stack, count: int) -> None:
    """Raise BankError if positions are outside a bank of ``count`` classes, or stand twice."""
    places = stack.positions
    if places.min() < 0 or places.max() >= count or len(np.unique(places)) != len(places):
        raise BankError(_UNFIT)
