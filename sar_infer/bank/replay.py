"""Replay: the state that a log makes of a base; undoing, folding and other bases are replays too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.photos import PhotoSet
from sar_infer.bank.records import (
    UNDO_STEPS,
    Add,
    Alias,
    Calibrate,
    Change,
    Fit,
    Forget,
    Learn,
    Log,
    Photos,
    Remove,
    Rename,
    Set,
    Settings,
    Step,
    changed_info,
    checkpoint,
)
from sar_infer.bank.state import REMOVED, RENAMED, Base, Draft, State
from sar_infer.bank.table import Block, Table
from sar_infer.errors import InputError
from sar_infer.text.names import name_key, name_keys


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
    info = {slot: item for slot, item in state.info_by_slot.items() if slot < count and table.has(slot)}
    again = [slot for slot in table.replaced.tolist() if slot < count and table.has(slot)]
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
    slots = [slot for slot in {**state.base.info, **state.info_by_slot} if table.has(slot)]
    positions = dict(zip(slots, table.positions(slots).tolist(), strict=True))
    info = {positions[slot]: item for slot in slots if (item := state.info_at(slot)) != PLAIN}
    slots = [slot for slot in {**state.base.photos, **state.photos_by_slot} if table.has(slot)]
    positions = dict(zip(slots, table.positions(slots).tolist(), strict=True))
    photos = {positions[slot]: one for slot in slots if (one := state.photos_at(slot))}
    if not photo_rows:
        photos = {position: one.limited(0) for position, one in photos.items()}
    block = state.base.block if table.plain else Block(tuple(table.names), table.whole())
    more = (photos, state.base.photos, state.fitted, state.learned, state.base.fitted, state.base.learned)
    stated = state.base.stated if table.plain and not any(more) else None
    provenance = {key: value for key, value in state.provenance.items() if key not in (REMOVED, RENAMED)}
    learned = state.learned
    if learned is not None:
        slots = [*learned.by_slot]
        learned = learned.moved(dict(zip(slots, table.positions(slots).tolist(), strict=True)))
    base = Base(block, state.encoder_digest, provenance, info, photos, state.calibration, state.fitted, learned, stated)
    calibration = state.calibration
    if calibration is not None and calibration.fits(state):
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
    left = {slot: name for slot, name in table.renamed.items() if slot < len(names) and table.has(slot)}
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
        if state.table.has(slot):
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


def converted(base: Base, other: Base, slots: Mapping[int, int], at: str) -> State:
    """Return the state on a base that has the classes of another, which a file holds itself.

    Classes of the base keep its order, others follow.

    Args:
        base: A base of the same encoder.
        other: The other.
        slots: The base's slot of each position whose class is the base's; see ``recognised``.
        at: The time at which classes came that the base does not have.
    """
    names, rows, info, photos = other.block.names, other.block.rows, other.info, other.photos
    pairs = [(slot, position) for position, slot in slots.items()]
    gone = sorted({*range(len(base.block))} - {slot for slot, _ in pairs})
    fresh = [position for position in range(len(names)) if position not in slots]
    table = Table((base.block,)).without(gone)
    if fresh:
        table = table.followed_by(Block(tuple(names[position] for position in fresh), rows[fresh]))
    pairs += [(len(base.block) + number, position) for number, position in enumerate(fresh)]
    changed = [slot for slot, position in pairs if slot < len(base.block) and names[position] != base.block.names[slot]]
    back = dict(pairs)
    table = dataclasses.replace(table, renamed={slot: names[back[slot]] for slot in changed})
    differ = sorted(
        slot
        for slot, position in pairs
        if slot < len(base.block) and not np.array_equal(base.block.rows[slot], rows[position])
    )
    if differ:
        table = dataclasses.replace(table, replaced=np.array(differ, np.intp), rows=rows[[back[s] for s in differ]])
    infos: dict[int, ClassInfo] = {}
    for slot, position in pairs:
        item = info.get(position, PLAIN)
        if item.added is None and (slot >= len(base.block) or slot in differ):
            item = dataclasses.replace(item, added=at)
        if item != base.info.get(slot, PLAIN):
            infos[slot] = item
    none = PhotoSet.none(table.dim)
    sets = {slot: photos.get(position, none) for slot, position in pairs if position in photos or slot in base.photos}
    sets = {s: one for s, one in sets.items() if s not in base.photos or one.identity != base.photos[s].identity}
    aliases = {name_key(alias): s for s, position in pairs for alias in info.get(position, PLAIN).aliases}
    state = State(base)
    state.table, state.info_by_slot, state.photos_by_slot, state.aliases = table, infos, sets, aliases
    state.fitted = other.fitted
    state.learned = other.learned and other.learned.moved({position: slot for slot, position in pairs})
    return state


def recognised(base: Base, other: Block, renamed: Mapping[str, str]) -> dict[int, int]:
    """Return the base's slot of each position whose class is the base's, by name; both rise.

    Args:
        base: A base.
        other: Other classes of the same encoder.
        renamed: The base's names of classes that were renamed, by their names; they have the base's rows.
    """
    slots: dict[int, int] = {}
    block, last = base.block, -1
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
