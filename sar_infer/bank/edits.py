"""Edits of a bank's classes as pure functions: each returns a new bank with one more step of history.

``by`` is the author of the change, such as a command line. If nothing would change, the same bank is returned.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.info import ClassInfo, check_text
from sar_infer.bank.learned import BankCalibration, FittedTensors
from sar_infer.bank.log import (
    Action,
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
    applied,
    changed_info,
    folded,
    names_in,
    replay,
    standing,
    with_step,
)
from sar_infer.bank.photos import PhotosByName, PhotoSet, united
from sar_infer.bank.state import SAME_ROW, State, check_rows
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.text.names import name_key

_NO_NOTES: Mapping[str, str] = {}
_MOST_NAMED = 3


def add(
    bank: ClassBank,
    names: Sequence[str],
    rows: Floats,
    info: Mapping[str, ClassInfo] | None = None,
    photos: PhotosByName | None = None,
    *,
    by: str = "",
) -> ClassBank:
    """Add classes at the end; one that the bank has in any spelling keeps its position, and gets the row if it differs.

    Photos are added to those that a class has; one that is counted for it already is left out.

    Args:
        bank: The bank.
        names: N names.
        rows: (N, D) float32, unit rows of the bank's encoder.
        info: What is known of them, by these names; ``added`` is set here. A class that the bank has keeps aliases,
            background and threshold if nothing is given for it.
        photos: Photos by class, one of these names, or a name or alias of a class that the bank has, which keeps all
            else. ``photos_only`` says that their names mean nothing; a class known by photos alone stays so.
        by: The author of the change.

    Raises:
        ClassNameError: A name stands twice, or is another name of a class; or there is no such class for photos.
        BankError: A row, a name or an alias is unsound, or photos are of another encoder's size.
    """
    info = info or {}
    if rows.shape != (len(names), bank.dim):
        raise BankError(f"expected rows ({len(names)}, {bank.dim}), got {rows.shape}")
    stray = next(iter(info.keys() - set(names)), None)
    if stray is not None:
        raise ClassNameError(f"info is given for {stray!r:.80}, which is not among the names to add")
    positions = dict(zip(names, positions_of(bank, names), strict=True))
    sets: dict[str, PhotoSet] = {}
    for name, one in (photos or {}).items():
        position = positions[name] if name in positions else bank.lookup.find(name)
        spelled = name if position is None else bank.names[position]
        had = sets.get(spelled, PhotoSet.none(bank.dim))
        both = united(had, one)
        sets[spelled] = (had if both is None else both).with_photos_only(one.photos_only or had.photos_only)
    at = utc_now()
    changes, words = class_changes(bank, positions, rows, info, at)
    return committed(bank, "add", [*changes, *photo_changes(bank, sets)], by, words, at=at)


def remove_photos(bank: ClassBank, name: str, digests: Iterable[bytes], *, by: str = "") -> ClassBank:
    """Remove photos of a class, by the digests of their pixels; it keeps all else.

    Args:
        bank: The bank.
        name: Name or alias of the class.
        digests: SHA-256 of the pixels of each photo.
        by: The author of the change.

    Raises:
        ClassNameError: The bank does not have the class.
        InputError: A photo is not counted for it, or is among those whose rows are no longer kept.
    """
    name, digests = bank.spelling(name), tuple(dict.fromkeys(digests))
    bank.photos_of(name).without(digests)  # refuses what cannot be removed
    return committed(bank, "remove", [Forget(name, digests)] if digests else [], by)


def set_photos_only(bank: ClassBank, name: str, *, photos_only: bool, by: str = "") -> ClassBank:
    """Say of a class that its name means nothing, so that its photos alone say what it is, or that it does.

    Args:
        bank: The bank.
        name: Name or alias of the class.
        photos_only: Its name means nothing.
        by: The author of the change.

    Raises:
        ClassNameError: The bank does not have the class.
    """
    name = bank.spelling(name)
    same = bank.photos_of(name).photos_only == photos_only
    return committed(bank, "amend", [] if same else [Set({name: Settings(photos_only=photos_only)})], by)


def remove(bank: ClassBank, names: Iterable[str], *, by: str = "") -> ClassBank:
    """Remove classes, by name or alias.

    Args:
        bank: The bank.
        names: Names or aliases.
        by: The author of the change.

    Raises:
        ClassNameError: The bank does not have one, or ``names`` is a single string.
    """
    if isinstance(names, str):
        raise ClassNameError(f"expected a list of names to remove, got the string {names!r:.80}")
    names = list(names)
    gone = [bank.names[position] for position in sorted({bank.lookup.find(name) for name in names})]
    if not gone:
        return bank
    by_alias = {name: f"given by its alias {alias!r}" for name, alias in aliases_among(bank, names).items()}
    return committed(bank, "remove", [Remove(tuple(gone))], by, [f"removed {listed(gone, by_alias)}"])


def aliases_among(bank: State, names: Iterable[str]) -> dict[str, str]:
    """Return those of the names that are aliases, by class."""
    positions = ((bank.lookup.alias(name), name) for name in names if bank.lookup.name(name) is None)
    return {bank.names[position]: name for position, name in positions if position is not None}


def rename(bank: ClassBank, old: str, new: str, row: Floats | None = None, *, by: str = "") -> ClassBank:
    """Give a class another name; it keeps its position, and, unless ``row`` is given, its row and phrases.

    Args:
        bank: The bank.
        old: Name or alias of the class.
        new: Its new name; if this is one of its aliases, the alias goes.
        row: (D,) float32, the unit row of the new name, which replaces the one that the class has.
        by: The author of the change.

    Raises:
        ClassNameError: There is no such class, another one has the new name, or the new name is empty.
        BankError: The row is unsound, or the new name has characters that no file can hold.
    """
    position = bank.lookup.find(old)
    name, owner = bank.names[position], bank.lookup.get(new)
    item = bank.info_of(name)
    if not new.strip():
        raise ClassNameError("the new name is empty")
    check_text("name", new)
    if name == new:
        plain = {name: dataclasses.replace(item, phrases=())}
        return bank if row is None else add(bank, [name], row[np.newaxis], plain, by=by)
    if owner not in (None, position):
        raise ClassNameError(f"{new!r} already stands for class {bank.names[owner]!r}")
    changes: list[Change] = [Rename(name, new)]
    words = [f"renamed {name!r} to {new!r}"]
    if row is not None:
        check_rows([new], row[np.newaxis])
        aliases = tuple(alias for alias in item.aliases if name_key(alias) != name_key(new))
        anew = dataclasses.replace(item, phrases=(), aliases=aliases, added=utc_now())
        changes.append(Add((new,), row[np.newaxis], {0: anew}))
        words.append("embedded anew")
    return committed(bank, "rename", changes, by, words)


def amend(bank: ClassBank, changes: Mapping[str, ClassInfo], *, by: str = "") -> ClassBank:
    """Set aliases, background and threshold of classes, by name or alias; phrases and ``added`` stay unchanged.

    Args:
        bank: The bank.
        changes: All aliases, background and threshold of each class, by name or alias.
        by: The author of the change.

    Raises:
        ClassNameError: The bank does not have a class.
        BankError: An alias is also the name or an alias of another class.
    """
    settings, aliases, fields = dict[str, Settings](), dict[str, tuple[str, ...]](), dict[str, str]()
    for text, update in changes.items():
        name = bank.spelling(text)
        item = bank.info_of(name)
        differ = [key for key in ("aliases", "background", "threshold") if getattr(update, key) != getattr(item, key)]
        if differ:
            fields[name] = ", ".join(differ)
        if update.aliases != item.aliases:
            aliases[name] = update.aliases
        if (new := changed_info(item, update)) != Settings():
            settings[name] = new
    made: list[Change] = [*([Alias(aliases)] if aliases else []), *([Set(settings)] if settings else [])]
    return committed(bank, "amend", made, by, [f"changed {listed([*fields], fields)}"])


def calibrate(bank: ClassBank, calibration: BankCalibration, *, by: str = "") -> ClassBank:
    """Give a bank its calibration.

    Args:
        bank: The bank.
        calibration: The calibration that was fitted on it as it is.
        by: The author of the change.
    """
    count = calibration.measured.get("fitted_on", 0)
    summary = f"calibrated on {count:,} photos of {len(calibration.calibrated):,} classes"
    return committed(bank, "calibrate", [Calibrate(calibration)], by, [summary])


def fit(bank: ClassBank, tensors: FittedTensors, *, by: str = "") -> ClassBank:
    """Give a bank class statistics that were fitted on its own rows; they replace earlier ones.

    Args:
        bank: The bank.
        tensors: What ``Statistics.tensors`` returns; none takes away what is there.
        by: The author of the change.
    """
    if not tensors:
        changes = [] if bank.fitted is None else [Fit({})]
        return committed(bank, "fit", changes, by, ["dropped the fitted class statistics"])
    sets = [photos for photos in bank.photos.values() if len(photos.rows)]
    count = sum(len(photos.rows) for photos in sets)
    words = [f"fitted class statistics on {count:,} photos of {len(sets):,} classes"]
    return committed(bank, "fit", [Fit(tensors)], by, words)


def learn(bank: ClassBank, learning: Learn, *, by: str = "") -> ClassBank:
    """Give a bank what photos without labels taught; it replaces all that was learned before.

    Photos that taught nothing change nothing.

    Args:
        bank: The bank.
        learning: Sums by class, by name or alias; without names and photos what was learned is cleared.
        by: The author of the change.

    Raises:
        ClassNameError: The bank does not have a class, or one is named twice.
        BankError: The sums are of another encoder's size.
    """
    names = tuple(map(bank.spelling, learning.names))
    if len({*names}) < len(names):
        raise ClassNameError("a class is named twice in what was learned")
    if not learning.photos:
        return committed(bank, "learn", [] if bank.learned is None else [learning], by, ["cleared what was learned"])
    if not names and not learning.translation.any():
        return bank
    words = [f"learned from {learning.photos:,} photos without labels, of {len(names):,} classes"]
    numbers = {name: float(number) for name, number in learning.numbers.items()}
    return committed(bank, "learn", [dataclasses.replace(learning, names=names, numbers=numbers)], by, words)


def rollback(bank: ClassBank, to: int, *, by: str = "") -> ClassBank:
    """Return the bank as it was after a step; the rollback is one more step of history, and cannot be undone itself.

    Args:
        bank: The bank.
        to: Number of the step; 0 is the beginning.
        by: The author of the change.

    Raises:
        InputError: There is no such step, another rollback took it back, or it is too old to be undone.
    """
    left = {step.n for step in standing(bank.log, to)}
    gone = [step.n for step in reversed(standing(bank.log)) if step.n not in left]
    if not gone:
        return bank
    summary = f"took back step{'s' if len(gone) > 1 else ''} {', '.join(map(str, gone))}; as after step {to}"
    step = Step(len(bank.history) + 1, utc_now(), "rollback", summary, by, to=to)
    return ClassBank.of(replay(bank.base, bank.log, to), with_step(bank.log, step))


def steps_back(log: Log, steps: int) -> int:
    """Return the number of the step that is this many steps back; steps that were rolled back do not count.

    Raises:
        InputError: There are fewer steps to take back.
    """
    line = [log.begun, *(step.n for step in standing(log))]
    if steps >= len(line):
        raise InputError(f"cannot go back {steps} steps, there are {len(line) - 1} to take back")
    return line[-1 - steps]


def class_changes(
    bank: ClassBank,
    positions: Mapping[str, int | None],
    rows: Floats,
    info: Mapping[str, ClassInfo],
    at: str,
    *,
    exact: bool = False,
) -> tuple[list[Change], list[str]]:
    """Return the changes that put rows in their positions, with all that is known of their classes, and these in words.

    Args:
        bank: The bank.
        positions: The position of each of N names; None is the end.
        rows: (N, D).
        info: What is known of them, by these names.
        at: UTC time in ISO form.
        exact: New names may differ in case or space alone from those that the bank has.
    """
    changes, plain = list[Change](), ClassInfo(added=at)
    done: dict[str, list[str]] = {"added": [], "replaced": [], "changed": []}
    put: list[tuple[str, ClassInfo, Floats]] = []
    aliases, settings = dict[str, tuple[str, ...]](), dict[str, Settings]()
    for (name, position), row in zip(positions.items(), rows, strict=True):
        if position is None:
            item = dataclasses.replace(_plainer(info[name], name), added=at) if name in info else plain
            put.append((name, item, row))
            done["added"].append(name)
            continue
        spelled, had = bank.names[position], bank.rows_at([position])[0]
        item = bank.info_of(spelled)
        update = _plainer(info.get(name, dataclasses.replace(item, phrases=())), spelled)
        differs = not same_row(had, row)
        if differs or dataclasses.replace(update, added=item.added) != item:
            done["replaced" if differs else "changed"].append(spelled)
        if update.aliases != item.aliases:
            aliases[spelled] = update.aliases
        if differs or update.phrases != item.phrases:
            put.append((spelled, dataclasses.replace(update, added=at), row if differs else had))
        elif (new := changed_info(item, update)) != Settings():
            settings[spelled] = new
    changes += [Alias(aliases)] if aliases else []
    changes += [Set(settings)] if settings else []
    if put:
        names = tuple(name for name, _, _ in put)
        together = (
            rows if len(put) == len(rows) == len(done["added"]) else np.array([row for *_, row in put], np.float32)
        )
        check_rows(names, together)
        changes.append(Add(names, together, {number: item for number, (_, item, _) in enumerate(put)}, exact=exact))
    counted = [(verb, of, listed(of) if len(of) <= _MOST_NAMED else f"{len(of):,}") for verb, of in done.items()]
    return changes, [f"{verb} {words}" for verb, of, words in counted if of]


def committed(
    bank: ClassBank,
    action: Action,
    changes: Sequence[Change],
    by: str,
    words: Sequence[str] = (),
    notes: Sequence[str] = (),
    at: str | None = None,
) -> ClassBank:
    """Return a bank after some changes, which are one step of its history; without changes the same bank.

    Args:
        bank: The bank before.
        action: What the step is called.
        changes: What it does.
        by: The author of the change.
        words: What becomes of classes; what becomes of photos is added.
        notes: What is said after that.
        at: UTC time in ISO form; None is now.

    Raises:
        BankError: A change is unsound.
    """
    if not changes:
        return bank
    state = applied(bank, changes, strict=True)
    about_photos = [names_in(change) for change in changes if isinstance(change, Photos | Forget | Set)]
    photo_words = _photo_words(bank, state, list(dict.fromkeys(itertools.chain(*about_photos))))
    summary = ", ".join([*words, *photo_words, *notes])
    step = Step(len(bank.history) + 1, at or utc_now(), action, summary, by, changes=tuple(changes))
    return ClassBank.of(state, folded(bank.base, with_step(bank.log, step)))


def photo_changes(bank: ClassBank, photos: PhotosByName) -> list[Change]:
    """Return the change that gives classes photos, without those that they have.

    Args:
        bank: The bank.
        photos: Photos by the names that classes have afterwards.

    Raises:
        BankError: They are of another encoder's size, or unsound.
    """
    fresh: dict[str, PhotoSet] = {}
    for name, one in photos.items():
        one.limited().check(bank.dim)
        had = bank.photos_of(name) if name in bank.index else PhotoSet.none(bank.dim)
        if not one.digest_set <= had.digest_set or (one.photos_only and not had.photos_only):
            fresh[name] = (one if one.folded else one.without(one.digest_set & had.digest_set)).limited()
    return [Photos(fresh)] if fresh else []


def _photo_words(bank: State, state: State, names: Sequence[str]) -> list[str]:
    """Return what happens to photos of classes, in words."""
    none = PhotoSet.none(bank.dim)
    pairs = [(bank.photos_of(name) if name in bank.index else none, state.photos_of(name)) for name in names]
    counts = {
        "added {} to {}": [len(now.digest_set - was.digest_set) for was, now in pairs],
        "removed {} from {}": [len(was.digest_set - now.digest_set) for was, now in pairs],
    }
    words = []
    for text, numbers in counts.items():
        count, of = sum(numbers), [name for name, number in zip(names, numbers, strict=True) if number]
        if count:
            words.append(text.format(f"{count:,} photo{'s' if count > 1 else ''}", listed(of)))
    for flag, text in ((True, "photos only: {}"), (False, "named: {}")):
        turned = zip(names, pairs, strict=True)
        of = [name for name, (was, now) in turned if was.photos_only != now.photos_only and now.photos_only == flag]
        if of:
            words.append(text.format(listed(of)))
    return words


def same_row(one: Floats, two: Floats) -> bool:
    """Return True if two rows (D,) are of the same text; a row with NaN equals no other."""
    return bool(np.abs(one - two).max(initial=0) <= SAME_ROW)


def positions_of(bank: State, names: Sequence[str]) -> list[int | None]:
    """Return the position of each name that the bank has, None for a new name; check what needs no rows.

    Raises:
        ClassNameError: A name stands twice, or is another name of a class.
        BankError: A name is unsound.
    """
    keys: set[str] = set()
    positions: list[int | None] = []
    for name in names:
        check_text("name", name)
        key = name_key(name)
        if key in keys:
            raise ClassNameError(f"class name {name!r:.80} stands more than once")
        keys.add(key)
        owner = bank.lookup.alias(name)
        if owner is not None:
            raise ClassNameError(
                f"{name!r:.80} is another name of class {bank.names[owner]!r}; remove that alias first"
            )
        positions.append(None if bank.lookup.name(name) is None else bank.lookup.find(name))
    return positions


def utc_now() -> str:
    """Return the time in UTC: ``2026-11-25T15:39:05Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed(names: Sequence[str], notes: Mapping[str, str] = _NO_NOTES) -> str:
    """Return up to three names in words, with the notes on them, more as a number."""
    noted = (f"{name!r} ({notes[name]})" if name in notes else repr(name) for name in names)
    return ", ".join(noted) if len(names) <= _MOST_NAMED else f"{len(names):,} classes"


def _plainer(item: ClassInfo, name: str) -> ClassInfo:
    """Return the info without its phrases if they are the name alone."""
    return dataclasses.replace(item, phrases=()) if item.phrases == (name,) else item
