"""The state of a bank: a base, whose rows are never copied, and what differs from it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.learned import BankCalibration, FittedTensors, Learned, fitted_identity, learned_identity
from sar_infer.bank.photos import PhotoSet, united
from sar_infer.bank.table import Block, Index, Lookup, Table, among
from sar_infer.errors import BankError
from sar_infer.storage.named_tensors import packed, read_only
from sar_infer.storage.tensor_file import tensor_bytes
from sar_infer.text.names import name_key

REMOVED, RENAMED = "removed", "renamed"
"""Keys of the provenance of files of versions 2 and 3: names of the bundle's classes that were removed or got another
row, and the bundle's names of those that were renamed, by the names that they have."""
SAME_ROW = 1e-5
"""Largest difference between two rows of the same text; runs of an encoder differ by less."""
Flags = npt.NDArray[np.bool_]
_UNIT_TOLERANCE = 1e-3
_FIELDS = ("base", "table", "info_by_slot", "photos_by_slot", "aliases", "calibration", "fitted", "learned")
"""All that a state is; what is computed from it is not among them."""


@dataclass(frozen=True, eq=False)
class Base:
    """The bank that a state begins with: a bundle's, or rows in the bank file itself. All states on it share it.

    Attributes:
        block: Its names and rows.
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose name encoder made the rows.
        provenance: Free JSON content: where the names come from.
        info: What is known of its classes beside name and row, by slot, of those of which anything is.
        photos: Their photos, by slot.
        calibration: Its own.
        fitted: Class statistics that were fitted on its rows.
        learned: What photos without labels taught it; its slots are the base's.
        stated: The digest that its file states; None is computed.
        path: The file of a bundle that it is, as a hint for those who open a file on it; None for rows of a bank's
            own, which stand in the bank's file.
    """

    block: Block
    encoder_digest: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[int, ClassInfo] = field(default_factory=dict)
    photos: Mapping[int, PhotoSet] = field(default_factory=dict)
    calibration: BankCalibration | None = None
    fitted: FittedTensors | None = None
    learned: Learned | None = None
    stated: str | None = None
    path: str | None = None

    @functools.cached_property
    def digest(self) -> str:
        """Return SHA-256 (hex) over names, offsets, embeddings and the identities of all else, little-endian."""
        return self.stated or self.computed_digest()

    def computed_digest(self) -> str:
        """Return the digest of what is there, whatever a file states."""
        digest = hashlib.sha256()
        for tensor in (*packed(self.block.names), self.block.rows):
            for piece in tensor_bytes(tensor):
                digest.update(piece)
        for slot in sorted(self.photos):
            digest.update(slot.to_bytes(8, "little") + self.photos[slot].identity)
        digest.update(b"fitted" + fitted_identity(self.fitted) if self.fitted else b"")
        digest.update(b"learned" + self.learned.identity() if self.learned else b"")
        return digest.hexdigest()

    def same(self, other: Base) -> bool:
        """Return True if another base has the same classes, with all that is known of them."""
        return self is other or (self.digest == other.digest and self.info == other.info)

    @functools.cached_property
    def aliases(self) -> Mapping[str, int]:
        """Return slots by the ``name_key`` of their aliases."""
        return {name_key(alias): slot for slot, item in self.info.items() for alias in item.aliases}

    @functools.cached_property
    def added(self) -> int:
        """Return how many of its classes came, or got their rows, at run time, before it was frozen."""
        return sum(item.added is not None for item in self.info.values())

    @functools.cached_property
    def judged(self) -> frozenset[int]:
        """Return the slots of classes with a threshold or background flag."""
        return frozenset(s for s, item in self.info.items() if item.background or item.threshold is not None)


class State:
    """Classes with all that is known of them, as they are after some changes of a base; it never changes.

    Attributes:
        base: Its base.
        table: Names and rows.
        info_by_slot: What is known of classes that are there, where it is not what the base knows.
        photos_by_slot: Photos of classes that are there, where they are not the base's.
        aliases: Slots by the ``name_key`` of aliases.
        calibration: The latest; it may be that of an earlier state, for which it says that it holds.
        fitted: Class statistics that were fitted on the bank's rows, by tensor name.
        learned: What photos without labels taught it.
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self.table = Table((base.block,))
        self.info_by_slot: Mapping[int, ClassInfo] = {}
        self.photos_by_slot: Mapping[int, PhotoSet] = {}
        self.aliases = base.aliases
        self.calibration, self.fitted, self.learned = base.calibration, base.fitted, base.learned

    @property
    def names(self) -> Sequence[str]:
        """Return the C class names; equal to the tuple of them."""
        return self.table.names

    @property
    def encoder_digest(self) -> str:
        """Return ``Manifest.encoder_digest`` of the bundle whose name encoder made the rows."""
        return self.base.encoder_digest

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return free JSON content: where the base's names come from."""
        return self.base.provenance

    @property
    def dim(self) -> int:
        """Return D."""
        return self.table.dim

    @functools.cached_property
    def embeddings(self) -> Floats:
        """Return all rows (C, D), read-only; copied unless nothing has changed, so large banks use ``rows_at``."""
        return read_only(self.table.whole())

    def rows_at(self, positions: Indices | Sequence[int]) -> Floats:
        """Return the rows (…, D) of some positions (…), copied."""
        return self.table.take(positions)

    @functools.cached_property
    def lookup(self) -> Lookup:
        """Return the positions of names and aliases, in any spelling."""
        return Lookup(self.table, self.aliases)

    @functools.cached_property
    def index(self) -> Index:
        """Return the position of each exact name."""
        return Index(self.table)

    def spelling(self, text: str) -> str:
        """Return the name of the class with this name or alias, in any case and spacing.

        Raises:
            ClassNameError: There is none, with similar spellings; or there are several that differ in case or space.
        """
        return self.names[self.lookup.find(text)]

    def info_at(self, slot: int) -> ClassInfo:
        """Return what is known of the class of a slot."""
        item = self.info_by_slot.get(slot)
        return self.base.info.get(slot, PLAIN) if item is None else item

    def photos_at(self, slot: int) -> PhotoSet:
        """Return the photos of the class of a slot."""
        photos = self.photos_by_slot.get(slot)
        return self.base.photos.get(slot) or PhotoSet.none(self.dim) if photos is None else photos

    def info_of(self, name: str) -> ClassInfo:
        """Return what is known of a class, by its exact name."""
        return self.info_at(self.table.slot(self.index[name]))

    def photos_of(self, name: str) -> PhotoSet:
        """Return the photos of a class, by its exact name."""
        return self.photos_at(self.table.slot(self.index[name]))

    def phrases(self, name: str) -> tuple[str, ...]:
        """Return the texts that were embedded for a class, by its exact name; by default the name itself."""
        return self.info_of(name).phrases or (name,)

    @functools.cached_property
    def info(self) -> Mapping[str, ClassInfo]:
        """Return what is known of classes, by name, of those of which anything is."""
        return {self.table.name(slot): self.info_at(slot) for slot in self.slots_with_info}

    @property
    def slots_with_info(self) -> list[int]:
        """Return the slots, rising, of classes of which anything is known."""
        slots = sorted(slot for slot in {**self.base.info, **self.info_by_slot} if self.table.has(slot))
        return [slot for slot in slots if self.info_at(slot) != PLAIN]

    @functools.cached_property
    def photos(self) -> Mapping[str, PhotoSet]:
        """Return the photos of classes by name, of those that have any, or that answer by photos alone."""
        return {self.table.name(slot): self.photos_at(slot) for slot in self.slots_with_photos}

    @property
    def slots_with_photos(self) -> list[int]:
        """Return the slots, rising, of classes that have photos, or that answer by photos alone."""
        slots = sorted(slot for slot in {**self.base.photos, **self.photos_by_slot} if self.table.has(slot))
        return [slot for slot in slots if self.photos_at(slot)]

    @functools.cached_property
    def added_count(self) -> int:
        """Return how many classes came, or got their rows, at run time."""
        base = self.base
        changed = {*self.table.removed.tolist(), *self.info_by_slot} if base.added else ()
        left = base.added - sum(base.info.get(slot, PLAIN).added is not None for slot in changed)
        return left + sum(item.added is not None for item in self.info_by_slot.values())

    @functools.cached_property
    def _judged(self) -> list[int]:
        """Return the slots of classes with a threshold or background flag."""
        changed = {s for s, item in self.info_by_slot.items() if item.background or item.threshold is not None}
        rest = (slot for slot in self.base.judged - self.info_by_slot.keys() if self.table.has(slot))
        return sorted({*rest, *changed})

    @functools.cached_property
    def background(self) -> Flags | None:
        """Return flags (C,) of the classes that are never an answer; None if there are none."""
        slots = [slot for slot in self._judged if self.info_at(slot).background]
        return self._flags(slots) if slots else None

    @property
    def background_names(self) -> frozenset[str]:
        """Return the names of the classes that are never an answer."""
        return frozenset(self.table.name(slot) for slot in self._judged if self.info_at(slot).background)

    @property
    def can_answer(self) -> bool:
        """Return True if there is a class that can be an answer: one that is not background."""
        return len(self.table) > len(self.background_names)

    @property
    def calibration_holds(self) -> bool | None:
        """Return True if the calibration is of the state as it is, False if it is of an earlier one; None without."""
        calibration = self.calibration
        if calibration is None:
            return None
        return {*calibration.background} == self.background_names and calibration.content_digest == self.content_digest

    @functools.cached_property
    def thresholds(self) -> Floats | None:
        """Return the least score (C,) of each class, NaN for one that has none; None if no class has one."""
        least = {slot: item for slot in self._judged if (item := self.info_at(slot).threshold) is not None}
        if not least:
            return None
        result = np.full(len(self.table), np.nan, dtype=np.float32)
        result[self.table.positions([*least])] = [*least.values()]
        return result

    @functools.cached_property
    def photographed(self) -> Flags | None:
        """Return flags (C,) of classes that have photos here, or answer by photos alone; None if there are none."""
        return self._flags(slots) if (slots := self.slots_with_photos) else None

    @property
    def touched(self) -> set[int]:
        """Return the slots of classes that are there and differ from the base's."""
        table, count = self.table, len(self.base.block)
        added = {slot for slot in range(count, table.starts[-1]) if table.has(slot)}
        return added | {*table.replaced.tolist(), *table.renamed, *self.info_by_slot, *self.photos_by_slot}

    def positions_from(self, bundled: State, positions: Sequence[int]) -> Indices:
        """Return the position here (N,) of classes that still have the row of a bundle's bank; -1 of others.

        A class that was renamed is found, as it has the slot of the bundle's class. Of a bank on another base, a class
        is the bundle's if it has its name and row.

        Args:
            bundled: The bundle's bank.
            positions: N positions there.
        """
        slots, table = bundled.table.slots(positions), self.table
        if self.base.digest == bundled.base.digest:
            gone = among(slots, table.removed) | among(slots, table.replaced)
            return np.where(gone, -1, table.positions(slots))
        here = [self.lookup.name(bundled.names[position]) for position in positions]
        same = [
            position
            if position is not None and np.array_equal(self.rows_at([position])[0], bundled.rows_at([mine])[0])
            else -1
            for position, mine in zip(here, positions, strict=True)
        ]
        return np.array(same, np.intp)

    @functools.cached_property
    def content_digest(self) -> str:
        """Return SHA-256 (hex) of names, rows, photos, statistics and what was learned: the base's, with what differs.

        States on one base that are equal have the same, whatever led to them. A class that was removed and added again
        is not the base's any more. Aliases, thresholds and background flags are not part of it.
        """
        table, count = self.table, len(self.base.block)
        removed = table.removed[: np.searchsorted(table.removed, count)]
        replaced = table.replaced[: np.searchsorted(table.replaced, count)]
        renamed = {slot: name for slot, name in sorted(table.renamed.items()) if slot < count}
        added = [name for number in range(1, len(table.blocks)) for name in table.names_of(number)]
        taught = self._taught()
        if not (len(removed) or len(replaced) or renamed or added or self.photos_by_slot or taught):
            return self.base.digest
        digest = hashlib.sha256(self.base.digest.encode())
        digest.update(_bytes(removed) + _bytes([*renamed]) + _bytes(replaced))
        for names in ([*renamed.values()], added):
            data, offsets = packed(names)
            digest.update(offsets.tobytes() + data.tobytes())
        for piece in tensor_bytes(table.rows[: len(replaced)]):
            digest.update(piece)
        digest.update(self._added_rows())
        for slot, photos in sorted(self.photos_by_slot.items()):
            digest.update(int(table.positions([slot])[0]).to_bytes(8, "little") + photos.identity)
        digest.update(taught)
        return digest.hexdigest()

    def _taught(self) -> bytes:
        """Return the identities of statistics and of what was learned, where they are not the base's."""
        base, taught = self.base, b""
        if self.fitted is not base.fitted and (one := fitted_identity(self.fitted)) != fitted_identity(base.fitted):
            taught += b"fitted" + one
        if self.learned is not base.learned and learned_identity(self.learned) != learned_identity(base.learned):
            slots = sorted(self.learned.by_slot) if self.learned else []
            taught += b"learned" + learned_identity(self.learned, self.table.positions(slots))
        return taught

    def _added_rows(self) -> bytes:
        """Return the digests of the rows of classes that are not the base's, in order."""
        table, digests = self.table, []
        for start, block in zip(table.starts[1:], table.blocks[1:], strict=False):
            rows = _row_digests(block).copy()
            low, high = np.searchsorted(table.replaced, (start, start + len(block)))
            for slot, row in zip(table.replaced[low:high].tolist(), table.rows[low:high], strict=True):
                rows[slot - start] = _row_digest(row)
            low, high = np.searchsorted(table.removed, (start, start + len(block)))
            digests.append(np.delete(rows, table.removed[low:high] - start, axis=0).tobytes())
        return b"".join(digests)

    def _flags(self, slots: Sequence[int]) -> Flags:
        result = np.zeros(len(self.table), dtype=np.bool_)
        result[self.table.positions(slots)] = True
        return result


def _row_digest(row: Floats) -> npt.NDArray[np.uint8]:
    data = np.ascontiguousarray(row, dtype="<f4").tobytes()
    return np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), np.uint8)


@functools.lru_cache(maxsize=64)
def _row_digests(block: Block) -> npt.NDArray[np.uint8]:
    """Return a digest (B, 16) of each row of a block, once."""
    data = np.ascontiguousarray(block.rows, dtype="<f4")
    digests = b"".join(hashlib.blake2b(row.data, digest_size=16).digest() for row in data)
    return np.frombuffer(digests, np.uint8).reshape(len(data), 16)


def _bytes(numbers: Sequence[int] | Indices) -> bytes:
    data = np.asarray(numbers, dtype="<i8")
    return len(data).to_bytes(8, "little") + data.tobytes()


class Draft(State):
    """A state while it is being changed, by the rules of ``log``; every rule does what it can.

    Args:
        state: The state to begin with.
        strict: Refuse aliases that stand for another class already; else they give way to it.
    """

    info_by_slot: dict[int, ClassInfo]
    photos_by_slot: dict[int, PhotoSet]
    aliases: dict[str, int]

    def __init__(self, state: State, *, strict: bool = False) -> None:
        vars(self).update({name: vars(state)[name] for name in _FIELDS})
        self.info_by_slot = dict(state.info_by_slot)
        self.photos_by_slot = dict(state.photos_by_slot)
        self.aliases = dict(state.aliases)
        self._strict = strict

    def state(self) -> State:
        """Return the state as it is now, after which nothing is changed here."""
        state = State(self.base)
        vars(state).update({name: vars(self)[name] for name in _FIELDS})
        return state

    def slots_of(self, names: Iterable[str]) -> dict[str, int]:
        """Return the slots of classes by names in any spelling, without those that are not there."""
        return {name: slot for name in names if (slot := self.table.slot_named(name)) is not None}

    def append(self, block: Block) -> range:
        """Add classes at the end and return their slots; small blocks are joined, so that they stay few."""
        first, size, blocks = self.table.starts[-1], len(block), [*self.table.blocks]
        self.outdate()
        for key in (name_key(name) for name in block.names) if self.aliases else ():
            self._give_way(key)
        while len(blocks) > 1 and len(blocks[-1]) <= 2 * len(block):
            last = blocks.pop()
            block = Block((*last.names, *block.names), np.concatenate([last.rows, block.rows]))
        self.table = dataclasses.replace(self.table, blocks=(*blocks, block))
        return range(first, first + size)

    def replace(self, slots: Sequence[int], rows: Floats) -> None:
        """Give classes other rows (R, D)."""
        if not len(slots):
            return
        if self.learned is not None and not np.array_equal(self.table.take(self.table.positions(slots)), rows):
            self.outdate()
        self.table = self.table.with_rows(slots, rows)

    def outdate(self) -> None:
        """Say of what was learned that it is of other classes or statistics."""
        if self.learned is not None and not self.learned.stale:
            self.learned = dataclasses.replace(self.learned, stale=True)

    def rename(self, slot: int, name: str) -> None:
        """Give a class another name."""
        self._give_way(name_key(name))
        self.table = self.table.with_name(slot, name)

    def remove(self, slots: Collection[int]) -> None:
        """Remove classes."""
        for slot in slots:
            for alias in self.info_at(slot).aliases:
                self.aliases.pop(name_key(alias), None)
            self.info_by_slot.pop(slot, None)
            self.photos_by_slot.pop(slot, None)
        if self.learned is not None and not self.learned.by_slot.keys().isdisjoint(slots):
            self.learned = self.learned.moved({slot: slot for slot in self.learned.by_slot if slot not in slots})
        self.table = self.table.without([*slots])

    def set_info(self, slot: int, item: ClassInfo) -> None:
        """Set what is known of a class, but for its aliases, which ``set_aliases`` sets."""
        aliases = self.info_at(slot).aliases
        self._set_info(slot, item if item.aliases == aliases else dataclasses.replace(item, aliases=aliases))

    def set_aliases(self, aliases: Mapping[int, Iterable[str]]) -> None:
        """Set all aliases of some classes.

        Raises:
            BankError: The draft is strict, and one stands for another class, or for this one already.
        """
        for slot in aliases:
            for alias in self.info_at(slot).aliases:
                self.aliases.pop(name_key(alias), None)
            self._set_info(slot, dataclasses.replace(self.info_at(slot), aliases=()))
        for slot, texts in aliases.items():
            free = [alias for alias in texts if self._claimed(slot, alias)]
            self._set_info(slot, dataclasses.replace(self.info_at(slot), aliases=tuple(free)))

    def add_photos(self, slot: int, photos: PhotoSet) -> None:
        """Add photos to those of a class; where nobody can tell them apart from those that are there, they stay out."""
        had = self.photos_at(slot)
        both = united(had, photos)
        if both is None and self._strict:
            raise BankError(
                f"photos of {self.table.name(slot)!r:.80}: some are kept as a sum alone, here and there, and may be "
                "the same"
            )
        only = had.photos_only or photos.photos_only
        self.set_photos(slot, (had if both is None else both).with_photos_only(only).limited())

    def remove_photos(self, slot: int, digests: Iterable[bytes]) -> None:
        """Remove photos of a class, those of which the row is kept."""
        had = self.photos_at(slot)
        latest = {digest.tobytes() for digest in had.digests[had.folded :]}
        self.set_photos(slot, had.without(latest.intersection(digests)))

    def set_photos(self, slot: int, photos: PhotoSet) -> None:
        """Set all photos of a class."""
        before = self.base.photos.get(slot)
        if (not photos and before is None) or (before is not None and before.identity == photos.identity):
            self.photos_by_slot.pop(slot, None)
        else:
            self.photos_by_slot[slot] = photos

    def _set_info(self, slot: int, item: ClassInfo) -> None:
        if item == self.base.info.get(slot, PLAIN):
            self.info_by_slot.pop(slot, None)
        else:
            self.info_by_slot[slot] = item

    def _give_way(self, key: str) -> None:
        """Drop the alias that a class now has as its name."""
        owner = self.aliases.get(key)
        if owner is None:
            return
        info = self.info_at(owner)
        if self._strict:
            raise BankError(f"alias {key!r} of class {self.table.name(owner)!r} is the name of another class")
        del self.aliases[key]
        left = tuple(alias for alias in info.aliases if name_key(alias) != key)
        self._set_info(owner, dataclasses.replace(info, aliases=left))

    def _claimed(self, slot: int, alias: str) -> bool:
        """Return True if an alias is free, and give it to a class."""
        key = name_key(alias)
        owner = next(iter(self.table.slots_named(key)[-1:]), self.aliases.get(key))
        if owner is None:
            self.aliases[key] = slot
            return True
        name, other = self.table.name(slot), self.table.name(owner)
        if self._strict and owner == slot:
            raise BankError(f"alias {alias!r} already stands for class {name!r} itself; case and space do not count")
        if self._strict:
            raise BankError(f"alias {alias!r} of class {name!r} already stands for class {other!r}")
        return False


def find(bank: State, text: str) -> int:
    """Return the position of the class with this name or alias, in any case and spacing.

    Raises:
        ClassNameError: There is none, with similar spellings; or there are several that differ in case or space.
    """
    return bank.lookup.find(text)


def nearest(bank: State, rows: Floats, k: int) -> tuple[Indices, Floats]:
    """Return the classes of a bank with the largest cosines.

    Args:
        bank: C classes.
        rows: (N, D) float32, unit rows.
        k: Number of classes, at most C.

    Returns:
        Positions (N, k) and their cosines (N, k), the largest first, ties in the bank's order.

    Raises:
        BankError: An embedding is not finite.
    """
    return bank.table.nearest(rows, k)


def check_rows(names: Sequence[str], rows: Floats) -> None:
    """Check rows (N, D) of N names.

    Raises:
        BankError: One is not of length 1; the first is named.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # as norm, without a copy of all rows
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
    if wrong.size:
        position = int(wrong[0])
        raise BankError(f"embedding of {names[position]!r} has length {lengths[position]:.4g}, expected 1")


def check_base(base: Base, *, rows: bool = True) -> None:
    """Check what a base holds.

    Args:
        base: The base.
        rows: Check its names and rows too; those of a large file are checked by ``verify`` alone.

    Raises:
        BankError: Something does not hold; the first finding is named.
    """
    block = base.block
    if block.rows.dtype != np.float32 or block.rows.ndim != 2 or len(block.rows) != len(block.names):
        raise BankError(
            f"expected float32 ({len(block.names)}, D) embeddings, got {block.rows.dtype} {block.rows.shape}"
        )
    if rows:
        check_rows(block.names, block.rows)
    stray = next((slot for slot in (*base.info, *base.photos) if not 0 <= slot < len(block)), None)
    if stray is not None:
        raise BankError(f"something is known of class {stray}, which the bank does not have")
    if base.aliases:
        aliases = {slot: item.aliases for slot, item in base.info.items() if item.aliases}
        bare = {slot: dataclasses.replace(item, aliases=()) for slot, item in base.info.items()}
        Draft(State(dataclasses.replace(base, info=bare)), strict=True).set_aliases(aliases)
    for photos in base.photos.values():
        photos.check(block.rows.shape[1])
