"""The classes that one call chooses from: those of the bank, and names given with the call."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.bank.head import ClassHead
from sar_infer.errors import InputError
from sar_infer.results import Branch, Source
from sar_infer.storage.packed_names import PackedNames
from sar_infer.text.names import Phrases, name_key

Flags = npt.NDArray[np.bool_]
_COPIED = 16_384
"""Rows of a bank up to which a changed set is copied into one block; of a larger bank it has views."""
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, eq=False)
class ClassSet:
    """The classes of a call, C columns.

    Attributes:
        names: C names.
        sources: The source of each.
        blocks: Unit rows of the classes in order, (C, D) when they are laid end to end.
        head: A class head for exactly these classes, in this order.
        background: (C,) flags of classes that take part and are never an answer; None if there are none.
        thresholds: (C,) least score of each class to be believed, NaN for a class without one; None if none has one.
        calibrated: (C,) flags of classes on whose photos scores were calibrated; None if there are none.
    """

    names: Sequence[str]
    sources: Sequence[Source]
    blocks: tuple[Floats, ...]
    head: ClassHead | None = None
    background: Flags | None = None
    thresholds: Floats | None = None
    calibrated: Flags | None = None

    @property
    def branch(self) -> Branch:
        """Return the branches that answer for these classes."""
        return "text" if self.head is None else "head+text"

    @functools.cached_property
    def embeddings(self) -> Floats:
        """Return all rows (C, D) in one piece; several blocks are copied, once."""
        return self.blocks[0] if len(self.blocks) == 1 else np.concatenate(self.blocks)

    def rows(self, columns: Sequence[int]) -> Floats:
        """Return the rows (N, D) of some classes."""
        ends = np.cumsum([len(block) for block in self.blocks])
        places = np.searchsorted(ends, columns, side="right").tolist()
        starts = (ends - [len(block) for block in self.blocks]).tolist()
        found = [self.blocks[place][column - starts[place]] for place, column in zip(places, columns, strict=True)]
        return np.array(found, dtype=np.float32).reshape(-1, self.blocks[0].shape[1])


def build_class_set(
    bank: ClassBank,
    given: Phrases,
    only: bool,
    embed: Callable[[Sequence[tuple[str, ...]]], Floats],
) -> ClassSet:
    """Return the bank's classes and the given ones after them; with ``only``, the given ones.

    A given name that the bank has, as a name or an alias, takes the row of the bank's class and stands in its place, so
    that no class stands twice; of several given names of one class, the first counts. A given name with phrases of its
    own is always encoded, and replaces the bank's class.

    Args:
        bank: Classes with known rows.
        given: Phrases by name.
        only: Leave out the bank's other classes, background classes too.
        embed: Returns the row of each tuple of phrases.

    Raises:
        InputError: no class is left.
    """
    if not given and not only and len(bank.names):
        return ClassSet(
            bank.names,
            Sources(len(bank.names)),
            (bank.embeddings,),
            background=bank.background,
            thresholds=bank.thresholds,
        )
    known = {name: bank.lookup.get(name) for name in given}
    given = _once(given, known)
    known = {name: known[name] for name in given}
    taken = [row if given[name] == (name,) else None for name, row in known.items()]
    extended = [phrases for phrases, row in zip(given.values(), taken, strict=True) if row is None]
    new_rows = iter(embed(extended)) if extended else iter(())
    kept = [] if only else _runs(len(bank.names), {row for row in known.values() if row is not None})
    count = sum(run.stop - run.start for run in kept)
    if not count + len(given):
        raise InputError("no class to choose from: give class names, or a bank that has some")
    rows = [next(new_rows) if row is None else bank.embeddings[row] for row in taken]
    blocks = [bank.embeddings[run] for run in kept] + ([np.array(rows, dtype=np.float32)] if rows else [])
    return ClassSet(
        PackedNames.chain([*(bank.names[run] for run in kept), given]),
        Sources(count, tuple("extended" if row is None else "bank" for row in taken)),
        (np.concatenate(blocks),) if len(bank.names) <= _COPIED else tuple(blocks),
        background=_gathered(bank.background, kept, taken, False),
        thresholds=_gathered(bank.thresholds, kept, taken, np.nan),
    )


def with_head(classes: ClassSet, head: ClassHead | None, bank: ClassBank) -> ClassSet:
    """Return the classes with the head, if they are exactly its own, with the rows of the bundle's bank.

    Args:
        classes: The classes of a call, from any bank.
        head: The bundle's head, which has each name once.
        bank: The bundle's bank, which has every name of the head.
    """
    if head is None or len(classes.names) != len(head.names) or "extended" in classes.sources:
        return classes
    columns = {name_key(name): column for column, name in enumerate(head.names)}
    keys = [name_key(name) for name in classes.names]
    if set(keys) != set(columns):
        return classes
    rows = [row for name in head.names if (row := bank.lookup.name(name)) is not None]
    if not np.array_equal(classes.embeddings, bank.embeddings[[rows[columns[key]] for key in keys]]):
        return classes
    return dataclasses.replace(classes, head=head.reordered([columns[key] for key in keys]))


def with_calibration(classes: ClassSet, calibrated: Collection[str], bank: ClassBank) -> ClassSet:
    """Return the classes with ``calibrated`` set: they are the manifest's and have the rows of the bundle's own bank.

    Args:
        classes: The classes of a call, from any bank.
        calibrated: ``Manifest.calibrated``.
        bank: The bundle's bank.
    """
    if not calibrated:
        return classes
    own = {name_key(name): row for name in calibrated if (row := bank.lookup.name(name)) is not None}
    found = [
        (column, row)
        for column, name in enumerate(classes.names)
        if (row := own.get(name_key(name))) is not None and classes.sources[column] == "bank"
    ]
    flags = np.zeros(len(classes.names), dtype=np.bool_)
    if found:
        columns, rows = (list(side) for side in zip(*found, strict=True))
        flags[columns] = (classes.rows(columns) == bank.embeddings[rows]).all(axis=1)
    return dataclasses.replace(classes, calibrated=flags)


def _once(given: Phrases, known: Mapping[str, int | None]) -> Phrases:
    """Return the given names without repetitions: a name without phrases goes if another stands for the same class.

    Args:
        given: Phrases by name.
        known: The row of each in the bank.
    """
    own = {name for name, phrases in given.items() if phrases != (name,)}
    first: dict[int | None, str] = {}
    for name in sorted(given, key=lambda name: name not in own):
        first.setdefault(known[name], name)
    return {
        name: phrases
        for name, phrases in given.items()
        if name in own or known[name] is None or first[known[name]] == name
    }


def _runs(count: int, without: Collection[int]) -> list[slice]:
    """Return the rows 0..count without some, as slices."""
    edges = [-1, *sorted(without), count]
    pairs = ((before + 1, after) for before, after in itertools.pairwise(edges))
    return [slice(start, stop) for start, stop in pairs if start < stop]


def _gathered(
    values: npt.NDArray[Value] | None, kept: Sequence[slice], taken: Sequence[int | None], default: Any
) -> npt.NDArray[Value] | None:
    """Return a value of each class of a set, from those of the bank's classes."""
    if values is None:
        return None
    given = np.array([default if row is None else values[row] for row in taken], dtype=values.dtype)
    return np.concatenate([*(values[run] for run in kept), given])


class Sources(Sequence[Source]):
    """The source of each class: first those of the bank, then those of the call. Takes no memory per class."""

    def __init__(self, bank: int, given: tuple[Source, ...] = ()) -> None:
        self._bank = bank
        self._given = given

    def __len__(self) -> int:
        return self._bank + len(self._given)

    @overload
    def __getitem__(self, place: int) -> Source: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Source]: ...
    def __getitem__(self, place: int | slice) -> Source | Sequence[Source]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        return "bank" if number < self._bank else self._given[number - self._bank]

    def __contains__(self, source: object) -> bool:
        return source in self._given or (source == "bank" and self._bank > 0)
