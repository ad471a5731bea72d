"""Merging banks: the classes of another bank are added, with all that is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.compare import difference_in_training
from sar_infer.bank.edits import class_changes, joined, listed, photo_changes, same_row, utc_now
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.photos import PhotoSet, united
from sar_infer.bank.records import Change, Forget, Remove, Set, Settings
from sar_infer.errors import BankError, ClassNameError
from sar_infer.text.names import name_key

Conflict = Literal["keep", "take", "refuse"]
_CHOOSE = "choose the bank's or the other's with --conflict keep|take"


def merge(
    bank: ClassBank, other: ClassBank, conflict: Conflict = "refuse", *, removals: bool = False, by: str = ""
) -> ClassBank:
    """Add the classes of another bank of the same encoder; a class that both have gets aliases and photos of both.

    Classes are the same if their names are equal to the letter, else in any case and spacing if that is unambiguous.
    An alias that is the name of a class in the merged bank is dropped, and the other's fitted statistics and what it
    learned without labels stay behind; the summary of the step says so.

    Args:
        bank: The bank to add to.
        other: The bank whose classes are added.
        conflict: How to settle a class that both have with different rows, thresholds or background, or with photos
            that cannot be told apart, and an alias that stands for two classes: ``keep`` the bank's, ``take`` the
            other's, or ``refuse``. A threshold that only one of them has is no conflict.
        removals: Remove the classes of the base that the other bank has removed, too.
        by: The author of the change, such as a command line.

    Raises:
        ClassNameError: There are conflicts, and they are refused; the message says how many.
        BankError: The other bank belongs to another encoder.
    """
    if other.encoder_digest != bank.encoder_digest:
        raise BankError(
            f"bank of another encoder: expected {bank.encoder_digest}, the other has {other.encoder_digest}"
        )
    before = _removals(bank, other) if removals else []
    positions = _matches(bank, other)
    rows: dict[str, int] = {}  # of the other bank, by the name in the merged one
    info: dict[str, ClassInfo] = {}
    photos: dict[str, PhotoSet] = {}
    clashes: dict[str, str] = {}  # what differs, by the other bank's name
    spelled = {name: name if (position := positions[name]) is None else bank.names[position] for name in positions}
    for name, position in positions.items():
        number = other.index[name]
        theirs, their_photos = other.info_of(name), other.photos_of(name)
        if position is None:
            rows[name], info[name] = number, theirs
            photos |= {name: their_photos} if their_photos else {}
            continue
        ours = bank.info_of(spelled[name])
        if their_photos:
            more, apart = _photos_of_both(bank, spelled[name], their_photos, take=conflict == "take")
            before += more
            clashes |= {name: "photos"} if apart and conflict == "refuse" else {}
            if not (apart == "sums" and conflict == "keep"):
                only = (their_photos if conflict == "take" else bank.photos_of(spelled[name])).photos_only
                photos[spelled[name]] = their_photos.with_photos_only(only)
        same = same_row(bank.rows_at([position])[0], other.rows_at([number])[0])
        if conflict == "refuse" and (difference := _clash(ours, theirs, same=same)):
            clashes[name] = difference
        if not same and conflict == "take":
            rows[spelled[name]] = number
        both = _united(ours, theirs, same=same, take=conflict == "take")
        if both != ours:
            info[spelled[name]] = both
    _refuse(clashes)
    gone = _settle(bank, other, info, lambda name: spelled.get(name, name), take=conflict == "take")
    if gone and conflict == "refuse":
        raise ClassNameError(f"alias {gone[0]!r} stands for different classes; {_CHOOSE}")
    note = f", dropped aliases {listed(gone)}" if gone else ""
    theirs_alone = difference_in_training(bank, other)
    note += "".join(f", left out {noun} of the other" for noun, change in theirs_alone.items() if change != "removed")
    return _put(bank, other, rows, info, by, note, photos, before)


def _removals(bank: ClassBank, other: ClassBank) -> list[Change]:
    """Return the removal of those classes of the other's base that it has removed and the bank has."""
    table = other.table
    names = [other.base.block.names[slot] for slot in table.removed.tolist() if slot < len(other.base.block)]
    names = [name for name in names if name in bank.index and other.lookup.name(name) is None]
    return [Remove(tuple(names))] if names else []


def _photos_of_both(
    bank: ClassBank, name: str, theirs: PhotoSet, *, take: bool
) -> tuple[list[Change], Literal["", "flags", "sums"]]:
    """Return what comes before the other's photos of a class that both have, and what a choice was needed for.

    Nobody can tell which photos two sums have in common, and a name means something or not.
    """
    ours = bank.photos_of(name)
    if united(ours, theirs) is None:
        return [Forget(name)] if take else [], "sums"
    if ours.photos_only == theirs.photos_only:
        return [], ""
    return [Set({name: Settings(photos_only=theirs.photos_only)})] if take else [], "flags"


def _compared(bank: ClassBank, other: ClassBank) -> list[str]:
    """Return the names of the other bank's classes that may differ from this one's: on one base, those that changed."""
    if not bank.base.same(other.base):
        return list(other.names)
    count = len(bank.base.block)
    ours = {slot for slot in {*bank.touched, *bank.table.removed.tolist()} if slot < count and other.table.has(slot)}
    return [other.table.name(slot) for slot in sorted({*other.touched, *ours})]


def _matches(bank: ClassBank, other: ClassBank) -> dict[str, int | None]:
    """Return the bank's position of each class of the other one; no position is used twice."""
    names = _compared(bank, other)
    exact = {name: position for name in names if (position := bank.index.get(name)) is not None}
    used = set(exact.values())
    positions: dict[str, int | None] = {}
    for name in names:
        position = exact.get(name)
        if position is None and len(alike := bank.lookup.names(name)) == 1:
            position = None if alike[0] in used or bank.names[alike[0]] in other.index else alike[0]
        if position is not None:
            used.add(position)
        positions[name] = position
    return positions


def _clash(ours: ClassInfo, theirs: ClassInfo, *, same: bool) -> str | None:
    """Return the name of a difference that only a choice can settle, None if there is none."""
    if not same:
        return "rows"
    if len({ours.threshold, theirs.threshold} - {None}) > 1:
        return "thresholds"
    return "background flags" if ours.background != theirs.background else None


def _refuse(clashes: Mapping[str, str]) -> None:
    """Raise ClassNameError if there are any."""
    for name, difference in clashes.items():
        count = "1 class conflicts" if len(clashes) == 1 else f"{len(clashes):,} classes conflict"
        raise ClassNameError(f"{count}: both banks have class {name!r}, with different {difference}; {_CHOOSE}")


def _united(ours: ClassInfo, theirs: ClassInfo, *, same: bool, take: bool) -> ClassInfo:
    """Return the info of a class that both have; phrases and threshold belong to the row."""
    first, second = (theirs, ours) if take else (ours, theirs)
    aliases = {name_key(alias): alias for alias in (*second.aliases, *first.aliases)}
    order = dict.fromkeys(map(name_key, (*first.aliases, *second.aliases)))
    thresholds = (first.threshold, second.threshold if same else None)
    return dataclasses.replace(
        ours,
        phrases=theirs.phrases if take and not same else ours.phrases,
        aliases=tuple(aliases[key] for key in order),
        background=first.background,
        threshold=next((least for least in thresholds if least is not None), None),
    )


def _settle(
    bank: ClassBank, other: ClassBank, info: dict[str, ClassInfo], spelled: Callable[[str], str], *, take: bool
) -> list[str]:
    """Leave each alias to one class, in ``info``, by names in the merged bank; return those that a class lost."""
    sides: list[tuple[Mapping[str, ClassInfo], Callable[[str], str]]] = [(bank.info, str), (other.info, spelled)]
    owners: dict[str, str] = {}
    for side, name_in_both in reversed(sides) if take else sides:
        for name, item in side.items():
            for alias in item.aliases:
                owners.setdefault(name_key(alias), name_in_both(name))
    fresh = {name_key(name) for name in info if name not in bank.index}
    gone: list[str] = []
    for name, item in {**bank.info, **info}.items():
        left = []
        for alias in item.aliases:
            key = name_key(alias)
            if owners[key] == name and key not in fresh and bank.lookup.name(alias) is None:
                left.append(alias)
            elif key != name_key(name):
                gone.append(alias)
        if len(left) < len(item.aliases):
            info[name] = dataclasses.replace(item, aliases=tuple(left))
    return gone


def _put(
    bank: ClassBank,
    other: ClassBank,
    rows: Mapping[str, int],
    info: Mapping[str, ClassInfo],
    by: str,
    note: str,
    photos: Mapping[str, PhotoSet],
    before: list[Change],
) -> ClassBank:
    """Put the other's ``rows`` by name; a class of which only the info changes keeps its own row."""
    names = list(dict.fromkeys([*rows, *info]))
    positions = {name: bank.index.get(name) for name in names}
    staying = [position for name, position in positions.items() if name not in rows and position is not None]
    new = np.concatenate([other.rows_at([*rows.values()]), bank.rows_at(staying)])
    info_by_name = {name: info.get(name) or (bank.info_of(name) if name in bank.index else PLAIN) for name in names}
    at = utc_now()
    exact = any(position is None and bank.lookup.name(name) is not None for name, position in positions.items())
    changes, summary = class_changes(bank, positions, new, info_by_name, at, exact=exact)
    return joined(bank, "merge", [*before, *changes, *photo_changes(bank, photos)], by, summary, note, at)
