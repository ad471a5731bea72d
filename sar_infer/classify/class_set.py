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

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.bank.calibration import BankCalibration
from sar_infer.bank.search import Lookup
from sar_infer.classifiers.composition import SMALL, Composer, Terms
from sar_infer.classifiers.head import ClassHead
from sar_infer.classifiers.trained_statistics import ClassPhotos
from sar_infer.errors import InputError
from sar_infer.results import Branch, Source
from sar_infer.storage.packed_names import PackedNames
from sar_infer.storage.tensor_file import Joined
from sar_infer.text.names import Phrases, name_key

Flags = npt.NDArray[np.bool_]
_COPIED = SMALL
"""Rows of a bank up to which a changed set is copied into one block; of a larger bank it has views."""
NO_PHOTOS: Mapping[str, ClassPhotos] = {}
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
        terms: Composes logits with image statistics; None if text alone ranks, or a head does.
        photographed: (C,) flags of classes that have photos beyond those of training; None if there are none.
        calibration: The bank's own, perhaps of an earlier state of it; None leaves the bundle's.
    """

    names: Sequence[str]
    sources: Sequence[Source]
    blocks: tuple[Floats, ...]
    head: ClassHead | None = None
    background: Flags | None = None
    thresholds: Floats | None = None
    calibrated: Flags | None = None
    terms: Terms | None = None
    photographed: Flags | None = None
    calibration: BankCalibration | None = None

    @property
    def branch(self) -> Branch:
        """Return the branches that answer for these classes."""
        if self.head is not None:
            return "head+text"
        return "text" if self.terms is None else "text+statistics"

    @property
    def shifted(self) -> bool:
        """Return True if the offset of classes with photos is not the one that was fitted."""
        return self.terms is not None and self.terms.shift != 0

    @functools.cached_property
    def embeddings(self) -> Floats:
        """Return all rows (C, D) in one piece; several blocks are copied, once."""
        return self.blocks[0] if len(self.blocks) == 1 else np.concatenate(self.blocks)

    def rows(self, columns: Sequence[int] | Indices) -> Floats:
        """Return the rows (…, D) of some classes."""
        places = np.asarray(columns, dtype=np.intp)
        return self.blocks[0][places] if len(self.blocks) == 1 else Joined(self.blocks).take(places)

    @functools.cached_property
    def lookup(self) -> Lookup:
        """Return the columns of names, in any spelling."""
        return Lookup(self.names, {})


def build_class_set(
    bank: ClassBank,
    given: Phrases,
    only: bool,
    embed: Callable[[Sequence[tuple[str, ...]]], Floats],
    composer: Composer | None = None,
    photos: Mapping[str, ClassPhotos] = NO_PHOTOS,
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
        composer: Gives the classes their terms; without one, text alone ranks them.
        photos: Photos of given classes by name, which count beside those that the bank has of them.

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
            terms=None if composer is None else composer.terms(bank, [slice(0, len(bank.names))]),
            photographed=bank.photographed,
        )
    known = {name: bank.lookup.get(name) for name in given}
    once = _once(given, known)
    seen = _photos(once, known, photos)
    given, known = once, {name: known[name] for name in once}
    taken = [row if given[name] == (name,) else None for name, row in known.items()]
    extended = [phrases for phrases, row in zip(given.values(), taken, strict=True) if row is None]
    new_rows = iter(embed(extended)) if extended else iter(())
    kept = [] if only else _runs(len(bank.names), {row for row in known.values() if row is not None})
    count = sum(run.stop - run.start for run in kept)
    if not count + len(given):
        raise InputError("no class to choose from: give class names, or a bank that has some")
    rows = [next(new_rows) if row is None else bank.embeddings[row] for row in taken]
    given_rows = np.array(rows, dtype=np.float32).reshape(len(rows), bank.embeddings.shape[1])
    blocks = [bank.embeddings[run] for run in kept] + ([given_rows] if rows else [])
    return ClassSet(
        PackedNames.chain([*(bank.names[run] for run in kept), given]),
        Sources(count, tuple("extended" if row is None else "bank" for row in taken)),
        (np.concatenate(blocks),) if len(bank.names) <= _COPIED else tuple(blocks),
        background=_gathered(bank.background, kept, taken, False),
        thresholds=_gathered(bank.thresholds, kept, taken, np.nan),
        terms=None if composer is None else composer.terms(bank, kept, given_rows, taken, seen),
        photographed=_photographed(bank, kept, taken, seen),
    )


def without_counted(
    bank: ClassBank, photos: Mapping[str, ClassPhotos | PhotoSet], replaced: Collection[str] = ()
) -> dict[str, ClassPhotos]:
    """Return what ranking needs of photos by name; a photo counts once for its class, whatever its spelling.

    Photos that the bank has for that class are left out.

    Args:
        bank: The call's bank.
        photos: Photos by name.
        replaced: ``name_key`` of the classes that the call gives phrases for, so that nothing of the bank's counts.
    """
    found: dict[str, ClassPhotos] = {}
    counted: dict[str, frozenset[bytes]] = {}
    for name, item in photos.items():
        if isinstance(item, ClassPhotos):
            found[name] = item
            continue
        row = bank.lookup.get(name) if name_key(name) not in replaced else None
        own = name if row is None else bank.names[row]
        has, key = bank.photos.get(own) if row is not None else None, name_key(own)
        known = counted.get(key, frozenset() if has is None else has.known)
        fresh = item.without(item.known & known)
        counted[key] = known | item.known
        if fresh:
            found[name] = ClassPhotos.of(fresh)
    return found


def with_photos(
    given: Phrases, photos: Mapping[str, ClassPhotos], width: int
) -> tuple[Phrases, Mapping[str, ClassPhotos]]:
    """Return the given names and those of photos, and the photos by these names, whose spellings may differ.

    Args:
        given: Phrases by name.
        photos: Photos by name.
        width: D of the encoder.

    Raises:
        InputError: a mean is of another width.
    """
    spelled, found = {name_key(name): name for name in given}, dict[str, ClassPhotos]()
    for name, item in photos.items():
        if item.mean.shape != (width,):
            raise InputError(
                f"photos of {name!r:.80}: expected a mean of {width} numbers, got {item.mean.shape[0]}; "
                "embed them with this bundle"
            )
        known = spelled.setdefault(name_key(name), name)
        found[known] = found[known].joined(item) if known in found else item
    return {**{name: (name,) for name in spelled.values()}, **given}, found


def with_head(classes: ClassSet, head: ClassHead | None, bank: ClassBank) -> ClassSet:
    """Return the classes with the head, if they are exactly its own, with the rows of the bundle's bank and no photos.

    Its logits were trained beside those of text alone, so that statistics take no part.

    Args:
        classes: The classes of a call, from any bank.
        head: The bundle's head, which has each name once.
        bank: The bundle's bank, which has every name of the head.
    """
    if head is None or len(classes.names) != len(head.names) or "extended" in classes.sources:
        return classes
    if classes.photographed is not None:
        return classes
    columns = {name_key(name): column for column, name in enumerate(head.names)}
    keys = [name_key(name) for name in classes.names]
    if set(keys) != set(columns):
        return classes
    rows = [row for name in head.names if (row := bank.lookup.name(name)) is not None]
    if not np.array_equal(classes.embeddings, bank.embeddings[[rows[columns[key]] for key in keys]]):
        return classes
    return dataclasses.replace(classes, head=head.reordered([columns[key] for key in keys]), terms=None)


def with_calibration(
    classes: ClassSet, calibrated: Collection[str], bank: ClassBank, changed: Flags | None = None
) -> ClassSet:
    """Return the classes with ``calibrated`` set: those that were calibrated, with the rows that they had.

    Args:
        classes: The classes of a call, from any bank.
        calibrated: The names that were calibrated.
        bank: The bank that they were calibrated in.
        changed: (C,) flags of classes that have other photos than then; None if there are none.
    """
    if not calibrated:
        return classes
    own = {name_key(name): row for name in calibrated if (row := bank.lookup.name(name)) is not None}
    found = [
        (column, row)
        for key, row in own.items()
        for column in classes.lookup.names(key)
        if classes.sources[column] == "bank"
    ]
    flags = np.zeros(len(classes.names), dtype=np.bool_)
    if found:
        columns, rows = (list(side) for side in zip(*found, strict=True))
        flags[columns] = (classes.rows(columns) == bank.embeddings[rows]).all(axis=1)
    if changed is not None:
        flags &= ~changed
    return dataclasses.replace(classes, calibrated=flags)


def with_own_calibration(classes: ClassSet, bank: ClassBank, photos: Collection[str]) -> ClassSet:
    """Return the classes with the calibration of their bank, which holds for it.

    Args:
        classes: The classes of a call.
        bank: Their bank.
        photos: Names of classes that the call has photos of.
    """
    calibration = bank.calibration
    if calibration is None:
        return classes
    keys = {name_key(name) for name in photos}
    keys |= {name_key(bank.names[row]) for name in photos if (row := bank.lookup.get(name)) is not None}
    changed = None
    if keys:
        changed = np.zeros(len(classes.names), dtype=np.bool_)
        changed[[column for key in keys for column in classes.lookup.names(key)]] = True
    found = with_calibration(classes, calibration.calibrated, bank, changed)
    return dataclasses.replace(found, calibration=calibration)


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


def _photos(
    given: Phrases, known: Mapping[str, int | None], photos: Mapping[str, ClassPhotos]
) -> list[ClassPhotos | None]:
    """Return the photos of each class that is given, also those under another name of it.

    Args:
        given: Phrases by name, a class once.
        known: The row of each name in the bank, also of names that went since they repeat another.
        photos: Photos by name.
    """
    found: list[ClassPhotos | None] = []
    for name in given:
        names = [name]
        if known[name] is not None:
            names += [other for other, row in known.items() if row == known[name] and other not in given]
        same = [photos[other] for other in names if other in photos]
        found.append(functools.reduce(ClassPhotos.joined, same) if same else None)
    return found


def _photographed(
    bank: ClassBank, kept: Sequence[slice], taken: Sequence[int | None], seen: Sequence[ClassPhotos | None]
) -> Flags | None:
    """Return flags of classes that have photos, of the bank or of the call; None if there are none."""
    result = _gathered(bank.photographed, kept, taken, False)
    if not any(item is not None for item in seen):
        return result
    given = np.array([item is not None for item in seen])
    if result is None:
        return np.concatenate([np.zeros(sum(run.stop - run.start for run in kept), dtype=np.bool_), given])
    result[len(result) - len(given) :] |= given
    return result


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
