"""The log of a bank: its kinds of change, each with its rule, and replay, the state that a log makes of a base.

A change names classes, never positions or slots, so that it means the same on another base. A rule is total: a class
that is not there is left out, and an alias that is the name of another class gives way to it. Undoing, folding and
other bases are replays too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.learned import BankCalibration, FittedTensors, Learned
from sar_infer.bank.photos import PhotoSet
from sar_infer.bank.state import REMOVED, RENAMED, Base, Draft, State
from sar_infer.bank.table import Block
from sar_infer.errors import BankError, InputError
from sar_infer.text.names import name_key, name_keys

Action = Literal["add", "remove", "rename", "amend", "merge", "rollback", "calibrate", "fit", "learn", "checkpoint"]
UNDO_STEPS = 64
"""Number of latest steps that can be undone."""


@dataclass(frozen=True, eq=False)
class Add:
    """Classes with their rows: new ones at the end, others in their position.

    Attributes:
        names: N names.
        rows: (N, D) float32, unit rows.
        info: All that is known of them, by their number among the N.
        exact: Names that differ from others in case or space alone are other classes.
    """

    kind: ClassVar[str] = "add"
    names: Sequence[str]
    rows: Floats
    info: Mapping[int, ClassInfo] = field(default_factory=dict)
    exact: bool = False

    def apply(self, draft: Draft) -> None:
        """Add the classes to a draft."""
        slots = {n: slot for n, name in enumerate(self.names) if (slot := self._slot(draft, name)) is not None}
        draft.replace([*slots.values()], self.rows[[*slots]])
        fresh = [number for number in range(len(self.names)) if number not in slots]
        if fresh:
            whole = len(fresh) == len(self.names)
            names = self.names if whole else [self.names[number] for number in fresh]
            block = Block(tuple(names), self.rows if whole else self.rows[fresh])
            slots |= zip(fresh, draft.append(block), strict=True)
        aliases: dict[int, tuple[str, ...]] = {}
        for number, slot in sorted(slots.items()):
            item = self.info.get(number, PLAIN)
            if item.aliases != draft.info_at(slot).aliases:
                aliases[slot] = item.aliases
            draft.set_info(slot, item)
        draft.set_aliases(aliases)

    def _slot(self, draft: Draft, name: str) -> int | None:
        slot = draft.table.slot_named(name)
        return None if slot is None or (self.exact and draft.table.name(slot) != name) else slot


@dataclass(frozen=True)
class Remove:
    """Classes that go, with all that is known of them."""

    kind: ClassVar[str] = "remove"
    names: tuple[str, ...]

    def apply(self, draft: Draft) -> None:
        """Remove the classes from a draft."""
        draft.remove({*draft.slots_of(self.names).values()})


@dataclass(frozen=True)
class Rename:
    """A class with another name; it keeps its row, and the phrases that this was made from."""

    kind: ClassVar[str] = "rename"
    old: str
    new: str

    def apply(self, draft: Draft) -> None:
        """Rename the class in a draft, unless another one has the name."""
        slot, owner = draft.table.slot_named(self.old), draft.table.slot_named(self.new)
        if slot is None or owner not in (None, slot):
            return
        item, name = draft.info_at(slot), draft.table.name(slot)
        phrases = item.phrases or (name,)
        draft.set_aliases({slot: [alias for alias in item.aliases if name_key(alias) != name_key(self.new)]})
        draft.rename(slot, self.new)
        draft.set_info(slot, dataclasses.replace(item, phrases=() if phrases == (self.new,) else phrases))


@dataclass(frozen=True)
class Alias:
    """All aliases of some classes, by name."""

    kind: ClassVar[str] = "alias"
    aliases: Mapping[str, tuple[str, ...]]

    def apply(self, draft: Draft) -> None:
        """Set the aliases in a draft."""
        draft.set_aliases({slot: self.aliases[name] for name, slot in draft.slots_of(self.aliases).items()})


@dataclass(frozen=True)
class Settings:
    """Settings of a class; a field that is None stays as it is."""

    threshold: float | None = None
    no_threshold: bool | None = None
    background: bool | None = None
    photos_only: bool | None = None


@dataclass(frozen=True)
class Set:
    """Threshold, background and photos only of some classes, by name."""

    kind: ClassVar[str] = "set"
    settings: Mapping[str, Settings]

    def apply(self, draft: Draft) -> None:
        """Set them in a draft."""
        for name, slot in draft.slots_of(self.settings).items():
            settings, item = self.settings[name], draft.info_at(slot)
            threshold = item.threshold if settings.threshold is None else settings.threshold
            background = item.background if settings.background is None else settings.background
            threshold = None if settings.no_threshold else threshold
            draft.set_info(slot, dataclasses.replace(item, threshold=threshold, background=background))
            if settings.photos_only is not None:
                draft.set_photos(slot, draft.photos_at(slot).with_photos_only(settings.photos_only))


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos that join those of classes, by name."""

    kind: ClassVar[str] = "photos"
    sets: Mapping[str, PhotoSet]

    def apply(self, draft: Draft) -> None:
        """Add the photos to a draft."""
        for name, slot in draft.slots_of(self.sets).items():
            draft.add_photos(slot, self.sets[name])


@dataclass(frozen=True)
class Forget:
    """Photos of a class that go, by their digests; None are all of them, and that its name means nothing."""

    kind: ClassVar[str] = "forget"
    name: str
    digests: tuple[bytes, ...] | None = None

    def apply(self, draft: Draft) -> None:
        """Remove the photos from a draft."""
        slot = draft.table.slot_named(self.name)
        if slot is not None and self.digests is None:
            draft.set_photos(slot, PhotoSet.none(draft.table.dim))
        elif slot is not None and self.digests is not None:
            draft.remove_photos(slot, self.digests)


@dataclass(frozen=True)
class Calibrate:
    """The calibration of the state before it."""

    kind: ClassVar[str] = "calibrate"
    calibration: BankCalibration

    def apply(self, draft: Draft) -> None:
        """Set the calibration of a draft."""
        draft.calibration = self.calibration


@dataclass(frozen=True, eq=False)
class Fit:
    """Class statistics that were fitted on the bank's own rows; without tensors there are none any more.

    Attributes:
        tensors: What ``Statistics.tensors`` returns; the bank keeps it and reads none of it.
    """

    kind: ClassVar[str] = "fit"
    tensors: FittedTensors

    def apply(self, draft: Draft) -> None:
        """Set the statistics of a draft; what was learned with earlier ones is stale."""
        draft.fitted = self.tensors or None
        draft.outdate()


@dataclass(frozen=True, eq=False)
class Learn:
    """Sums over photos without labels, in place of what was learned before; without names and photos it clears it.

    Attributes:
        names: K class names.
        sums: (K, D) float32, weighted sums of the unit rows of images.
        counts: (K,) float64, weighted counts of images, 0 or more.
        translation: (D,) float32, what is added to the row of an image.
        numbers: Further numbers, such as a temperature; the bank reads none of them.
        photos: Number of photos that were looked at.
        stale: It is of other classes or statistics than those at this step, as a fold finds it.

    Raises:
        BankError: Shapes do not fit each other, a number is not finite, or a count is below 0.
    """

    kind: ClassVar[str] = "learn"
    names: tuple[str, ...]
    sums: Floats
    counts: npt.NDArray[np.float64]
    translation: Floats
    numbers: Mapping[str, float] = field(default_factory=dict)
    photos: int = 0
    stale: bool = False

    def __post_init__(self) -> None:
        shapes = (self.sums.shape, self.counts.shape, self.translation.shape)
        expected = ((len(self.names), *self.translation.shape), (len(self.names),), self.translation.shape[:1])
        if shapes != expected:
            raise BankError(f"what was learned: expected sums, counts and translation {expected}, got {shapes}")
        if self.sums.dtype != np.float32 or self.translation.dtype != np.float32 or self.counts.dtype != np.float64:
            raise BankError("what was learned: expected float32 sums and translation, and float64 counts")
        if not all(np.isfinite(array).all() for array in (self.sums, self.counts, self.translation)):
            raise BankError("what was learned has numbers that are not finite")
        if (self.counts < 0).any() or self.photos < bool(self.names):
            raise BankError("what was learned: expected counts of 0 or more, and a photo for any class")
        if not all(map(math.isfinite, self.numbers.values())):
            raise BankError("what was learned has numbers that are not finite")

    @classmethod
    def nothing(cls, dim: int) -> Learn:
        """Return the change that clears what was learned from rows of ``dim`` numbers."""
        return cls((), np.empty((0, dim), np.float32), np.empty(0), np.zeros(dim, np.float32))

    def apply(self, draft: Draft) -> None:
        """Set what a draft has learned; names without a class are left out."""
        if len(self.translation) != draft.table.dim:
            raise BankError(f"what was learned has {len(self.translation)} numbers, expected {draft.table.dim}")
        slots, values = draft.slots_of(self.names), zip(self.names, self.sums, self.counts.tolist(), strict=True)
        by_slot = {slots[name]: (row, count) for name, row, count in values if name in slots}
        learned = Learned(self.translation, by_slot, self.numbers, self.photos, self.stale)
        draft.learned = learned if self.photos else None


Change = Add | Remove | Rename | Alias | Set | Photos | Forget | Calibrate | Fit | Learn


def names_in(change: Change) -> Sequence[str]:
    """Return the names of the classes that a change is about."""
    match change:
        case Add() | Remove() | Learn():
            return change.names
        case Rename():
            return (change.old,)
        case Forget():
            return (change.name,)
        case Alias():
            return (*change.aliases,)
        case Set():
            return (*change.settings,)
        case Photos():
            return (*change.sets,)
    return ()


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a bank's history.

    Attributes:
        n: Number of the step, from 1.
        at: UTC time in ISO form.
        action: The edit that was made.
        summary: A description of the change.
        by: The author of the change, such as a command line.
        to: The step that a rollback led back to; 0 is the beginning.
        changes: What it does; None if it was taken back, or is too old to be undone, so that text alone is left.
    """

    n: int
    at: str
    action: Action
    summary: str
    by: str = ""
    to: int | None = None
    changes: tuple[Change, ...] | None = None

    @property
    def can_undo(self) -> bool:
        """Return True if it can be taken back."""
        return self.changes is not None


@dataclass(frozen=True, eq=False)
class Log:
    """The changes made to a base, step by step.

    Attributes:
        steps: All steps, the oldest first.
        begun: Number of the latest step that is too old to be undone; 0 if there is none.
        checkpoint: Step 0, which does what steps 1 to ``begun`` have done, in fewer changes; None is nothing.
    """

    steps: tuple[Step, ...] = ()
    begun: int = 0
    checkpoint: Step | None = None


def checkpoint(changes: Sequence[Change]) -> Step | None:
    """Return a step 0 with these changes; None if there are none."""
    return Step(0, "", "checkpoint", "", changes=tuple(changes)) if changes else None


def changed_info(item: ClassInfo, other: ClassInfo) -> Settings:
    """Return the settings that make one info of another, but for aliases."""
    threshold = other.threshold if other.threshold != item.threshold else None
    return Settings(
        threshold=threshold,
        no_threshold=True if other.threshold is None and item.threshold is not None else None,
        background=other.background if other.background != item.background else None,
    )


def replay(base: Base, log: Log, to: int | None = None) -> State:
    """Return the state after a step of a log.

    Args:
        base: What the log begins with.
        log: The log.
        to: Number of the step; None is the latest.

    Raises:
        InputError: There is no such step, another rollback took it back, or it is too old.
    """
    changes: list[Change] = []
    for step in [*([log.checkpoint] if log.checkpoint else []), *standing(log, to)]:
        changes += step.changes or ()
    return applied(State(base), changes)


def applied(state: State, changes: Iterable[Change], *, strict: bool = False) -> State:
    """Return a state after some changes.

    Args:
        state: The state before.
        changes: The changes.
        strict: Refuse what the rules would leave out: aliases that stand for another class, photos that may be the
            same.

    Raises:
        BankError: Something is refused.
    """
    draft = Draft(state, strict=strict)
    for change in changes:
        change.apply(draft)
    return draft.state()


def standing(log: Log, to: int | None = None) -> list[Step]:
    """Return the steps that lead from the checkpoint to a step, without those that were taken back.

    Raises:
        InputError: There is no such step, another rollback took it back, or it is too old.
    """
    count = len(log.steps)
    to = count if to is None else to
    if not 0 <= to <= count:
        raise InputError(f"no step {to}; the history has steps 1 to {count}, and 0 is the beginning")
    if to < log.begun:
        raise InputError(
            f"step {log.begun} cannot be undone any more (undoing is kept for {UNDO_STEPS} steps, and not for those of "
            f"older files); the earliest to go back to is {log.begun}"
        )
    lines = {log.begun: [log.begun]}  # the steps that stand after each step
    undone: dict[int, int] = {}
    line = [log.begun]
    for step in log.steps[log.begun :]:
        if step.to is None:
            line = [*line, step.n]
        else:
            back = lines.get(step.to, [log.begun])
            undone |= dict.fromkeys([n for n in line if n not in back], step.n)
            line = back
        lines[step.n] = line
    steps = [log.steps[n - 1] for n in lines[to] if n > log.begun]
    lost = next((step.n for step in steps if step.changes is None), None)
    if lost is not None:
        raise InputError(f"step {to} was taken back by step {undone.get(lost, count)}; it cannot be brought back")
    return steps


def with_step(log: Log, step: Step) -> Log:
    """Return a log with one more step; steps that it takes back, or that are too old now, keep their text alone."""
    steps = [*log.steps, step]
    if step.to is not None:
        left = {one.n for one in standing(log, step.to)}
        steps = [
            dataclasses.replace(one, changes=None) if one.n > log.begun and one.n not in left else one for one in steps
        ]
    return Log(tuple(steps), log.begun, log.checkpoint)


def folded(base: Base, log: Log, most: int = UNDO_STEPS) -> Log:
    """Return a log whose steps but for the latest ``most`` that can be undone are folded into its checkpoint."""
    stand = standing(log)
    if len(stand) <= most:
        return log
    begun = stand[-most - 1].n if most else len(log.steps)
    state = replay(base, log, begun)
    steps = [dataclasses.replace(one, changes=None) if one.n <= begun else one for one in log.steps]
    return Log(tuple(steps), begun, checkpoint(changes_of(state)))


def changes_of(state: State) -> list[Change]:
    """Return changes that make a state of its base."""
    base, table = state.base, state.table
    count = len(base.block)
    removed = table.removed[: np.searchsorted(table.removed, count)].tolist()
    changes: list[Change] = [Remove(tuple(base.block.names[slot] for slot in removed))] if removed else []
    changes += _renames(state)
    info = {slot: item for slot, item in state.info_by_slot.items() if slot < count}
    again = [slot for slot in table.replaced.tolist() if slot < count]
    again = sorted({*again, *(slot for slot, item in info.items() if _embedded_anew(state, slot, item))})
    changes += _settings(state, info)
    if again:
        rows = table.take(table.positions(again))
        info_by_number = {number: state.info_at(slot) for number, slot in enumerate(again)}
        changes.append(Add(tuple(map(table.name, again)), rows, info_by_number, exact=True))
    names = tuple(name for number in range(1, len(table.blocks)) for name in table.names_of(number))
    if names:
        slots = [slot for slot in range(count, table.starts[-1]) if table.has(slot)]
        info_by_number = {number: item for number, slot in enumerate(slots) if (item := state.info_at(slot)) != PLAIN}
        alike = any(len(table.slots_named(key)) > 1 for key in name_keys(names))
        changes.append(Add(names, table.take(np.arange(count - len(removed), len(table))), info_by_number, exact=alike))
    changes += _photos(state)
    if state.fitted is not base.fitted or state.learned is not base.learned:
        cleared = [Fit({})] * (base.fitted is not None) + [Learn.nothing(state.dim)] * (base.learned is not None)
        changes += [*cleared, *taught_changes(state)]
    if state.calibration is not None and state.calibration is not base.calibration:
        changes.append(Calibrate(state.calibration))
    return changes


def flattened(state: State, photo_rows: bool = True) -> Base:
    """Return a state as a base of its own, with all its rows in one block; a calibration that held still holds.

    Args:
        state: The state.
        photo_rows: Keep the rows of photos; else their sums and digests alone stay.
    """
    table = state.table

    def by_position(slots: Collection[int]) -> Iterator[tuple[int, int]]:
        return zip(slots, table.positions([*slots]).tolist(), strict=True)

    info = {position: state.info_at(slot) for slot, position in by_position(state.slots_with_info)}
    photos = {position: state.photos_at(slot) for slot, position in by_position(state.slots_with_photos)}
    if not photo_rows:
        photos = {position: one.limited(0) for position, one in photos.items()}
    block = state.base.block if table.plain else Block(tuple(table.names), table.whole())
    more = (photos, state.base.photos, state.fitted, state.learned, state.base.fitted, state.base.learned)
    stated = state.base.stated if table.plain and not any(more) else None
    provenance = {key: value for key, value in state.provenance.items() if key not in (REMOVED, RENAMED)}
    learned = state.learned and state.learned.moved(dict(by_position(state.learned.by_slot)))
    base = Base(block, state.encoder_digest, provenance, info, photos, state.calibration, state.fitted, learned, stated)
    calibration = state.calibration
    if calibration is not None and state.calibration_holds:
        calibration = dataclasses.replace(calibration, content_digest=base.digest)
    return dataclasses.replace(base, calibration=calibration)


def _embedded_anew(state: State, slot: int, item: ClassInfo) -> bool:
    """Return True if the phrases of a base's class, or the time it got its row, are not those of the base."""
    was, name = state.base.info.get(slot, PLAIN), state.base.block.names[slot]
    now = state.table.name(slot)
    phrases = (item.phrases or (now,)) != (was.phrases or (name,))
    return phrases or item.added != was.added


def _renames(state: State) -> list[Change]:
    """Return the renames of the base's classes, in an order in which no two have the same name."""
    table, names = state.table, state.base.block.names
    left = {slot: name for slot, name in table.renamed.items() if slot < len(names)}
    now = {slot: names[slot] for slot in left}
    changes: list[Change] = []
    while left:
        used = {name_key(name): slot for slot, name in now.items()}
        free = next((slot for slot, name in left.items() if used.get(name_key(name), slot) == slot), None)
        slot = next(iter(left)) if free is None else free
        new = f"{names[slot]} ({slot})" if free is None else left.pop(slot)  # of a circle one has to wait
        changes.append(Rename(now[slot], new))
        now[slot] = new
    return changes


def _settings(state: State, info: Mapping[int, ClassInfo]) -> list[Change]:
    """Return the changes of aliases and settings of the base's classes."""
    aliases: dict[str, tuple[str, ...]] = {}
    settings: dict[str, Settings] = {}
    for slot, item in info.items():
        was, name = state.base.info.get(slot, PLAIN), state.table.name(slot)
        if item.aliases != was.aliases:
            aliases[name] = item.aliases
        if (changed := changed_info(was, item)) != Settings():
            settings[name] = changed
    return [*([Alias(aliases)] if aliases else []), *([Set(settings)] if settings else [])]


def _photos(state: State) -> list[Change]:
    changes: list[Change] = []
    sets: dict[str, PhotoSet] = {}
    for slot, photos in sorted(state.photos_by_slot.items()):
        name = state.table.name(slot)
        if slot in state.base.photos:
            changes.append(Forget(name))
        if photos:
            sets[name] = photos
    return [*changes, *([Photos(sets)] if sets else [])]


def taught_changes(state: State) -> list[Change]:
    """Return the changes that give a bank the statistics of a state, and what this has learned."""
    changes: list[Change] = [] if state.fitted is None else [Fit(state.fitted)]
    learned = state.learned
    if learned is None:
        return changes
    slots = sorted(learned.by_slot)
    sums = np.array([learned.by_slot[slot][0] for slot in slots], np.float32).reshape(len(slots), state.dim)
    counts = np.array([learned.by_slot[slot][1] for slot in slots], np.float64)
    names = tuple(map(state.table.name, slots))
    return [*changes, Learn(names, sums, counts, learned.translation, learned.numbers, learned.photos, learned.stale)]


def converted(base: Base, other: Base, renamed: Mapping[str, str], at: str) -> State | None:
    """Return the state on a base that has the classes of another, which a file holds itself; None if they share few.

    Classes of the base keep its order, others follow. A calibration that held still holds.

    Args:
        base: A base of the same encoder.
        other: The other.
        renamed: The base's names of classes that were renamed, by their names; they have the base's rows.
        at: The time at which classes came that the base does not have.
    """
    slots = _recognised(base.block, other.block, renamed)
    if 2 * len(slots) < min(len(base.block), len(other.block)):
        return None
    names, rows, draft = other.block.names, other.block.rows, Draft(State(base))
    draft.remove({*range(len(base.block))}.difference(slots.values()))
    differ = [position for position, slot in slots.items() if not np.array_equal(base.block.rows[slot], rows[position])]
    draft.replace([slots[position] for position in differ], rows[differ])
    for position, slot in slots.items():
        if names[position] != base.block.names[slot]:
            draft.rename(slot, names[position])
    fresh = [position for position in range(len(names)) if position not in slots]
    if fresh:
        appended = draft.append(Block(tuple(names[position] for position in fresh), rows[fresh]))
        slots = {**slots, **dict(zip(fresh, appended, strict=True))}
    came = {*fresh, *differ}
    for position, slot in slots.items():
        item = other.info.get(position, PLAIN)
        if item.added is None and position in came:
            item = dataclasses.replace(item, added=at)
        if item is not PLAIN or slot in base.info:
            draft.set_info(slot, item)
        if position in other.photos or slot in base.photos:
            draft.set_photos(slot, other.photos.get(position, PhotoSet.none(draft.dim)))
    pairs = ((slot, other.info.get(position, PLAIN).aliases) for position, slot in slots.items())
    draft.set_aliases({slot: aliases for slot, aliases in pairs if aliases != draft.info_at(slot).aliases})
    draft.fitted, draft.learned = other.fitted, other.learned and other.learned.moved(slots)
    draft.calibration, state = other.calibration, draft.state()
    if other.calibration is not None and other.calibration.content_digest == other.digest:
        state.calibration = dataclasses.replace(other.calibration, content_digest=state.content_digest)
    return state


def _recognised(block: Block, other: Block, renamed: Mapping[str, str]) -> dict[int, int]:
    """Return the row of a base's block of each row of another whose class is the base's, by name; both rise."""
    slots: dict[int, int] = {}
    last = -1
    for position, name in enumerate(other.names):
        slot = position if position < len(block) and block.names[position] == name else None
        if slot is None:
            origin = renamed.get(name, name)
            alike = block.rows_of(name_key(origin))
            slot = next((row for row in alike if block.names[row] == origin), None)
            if slot is not None and origin != name and not np.array_equal(block.rows[slot], other.rows[position]):
                slot = None
        if slot is not None and slot > last:
            slots[position] = last = slot
    return slots
