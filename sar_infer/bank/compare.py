"""Two banks of one encoder: the changes from one to the other, and adding the classes of one to the other."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.edits import class_changes, committed, listed, photo_changes, same_row, utc_now
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.learned import NOTHING, fitted_identity
from sar_infer.bank.log import Change, Forget, Remove, Set, Settings
from sar_infer.bank.photos import PhotoSet, united
from sar_infer.bank.state import State
from sar_infer.errors import BankError, ClassNameError
from sar_infer.text.names import name_key

Conflict = Literal["keep", "take", "refuse"]
_CHOOSE = "choose the bank's or the other's with --conflict keep|take"


@dataclass(frozen=True)
class PhotoChange:
    """The changes of a class's photos: how many came and went, and if its name means nothing now, or nothing before."""

    came: int
    went: int
    photos_only: bool | None = None


@dataclass(frozen=True)
class Difference:
    """The changes from bank a to bank b; the order of classes does not count.

    Attributes:
        added: Names that only b has.
        removed: Names that only a has.
        renamed: New name by old name, for a row that a has under one name and b under another.
        reembedded: Cosine between the old and the new row, by name, of classes whose row has changed.
        changed: Info of a class in a and in b, by name, if it differs; renamed classes are left out.
        photos: What changed in the photos of a class that both have.
        training: ``added``, ``removed`` or ``changed``, of ``statistics`` that were fitted on the bank's rows and of
            ``learning`` from photos without labels.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: Mapping[str, str]
    reembedded: Mapping[str, float]
    changed: Mapping[str, tuple[ClassInfo, ClassInfo]]
    photos: Mapping[str, PhotoChange] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(vars(self).values())


def diff(a: State, b: State) -> Difference:
    """Return the changes from a to b, two banks of one encoder.

    Raises:
        BankError: They belong to different encoders, so that their rows cannot be compared.
    """
    if a.encoder_digest != b.encoder_digest:
        raise BankError(f"banks of different encoders: {a.encoder_digest} and {b.encoder_digest}")
    ours, theirs = _names_compared(a, b), _names_compared(b, a)
    added = [name for name in theirs if name not in a.index]
    removed = [name for name in ours if name not in b.index]
    shared = [name for name in dict.fromkeys([*ours, *theirs]) if name in a.index and name in b.index]
    reembedded: dict[str, float] = {}
    changed: dict[str, tuple[ClassInfo, ClassInfo]] = {}
    photos: dict[str, PhotoChange] = {}
    for name in shared:
        one, two = a.rows_at([a.index[name]])[0], b.rows_at([b.index[name]])[0]
        if not np.array_equal(one, two):
            reembedded[name] = float(one @ two)
        before, after = _same_day(a.info_of(name), b.info_of(name))
        if before != after:
            changed[name] = before, after
        was, now = a.photos_of(name), b.photos_of(name)
        turned = None if was.photos_only == now.photos_only else now.photos_only
        change = PhotoChange(len(now.digest_set - was.digest_set), len(was.digest_set - now.digest_set), turned)
        if change != PhotoChange(0, 0):
            photos[name] = change
    renamed = _renamed(a, b, removed, added) if removed and added else {}
    came = set(renamed.values())
    return Difference(
        tuple(name for name in added if name not in came),
        tuple(name for name in removed if name not in renamed),
        renamed,
        reembedded,
        changed,
        photos,
        _difference_in_training(a, b),
    )


def _difference_in_training(a: State, b: State) -> dict[str, str]:
    """Return ``Difference.training`` from a to b."""
    identities = {
        "statistics": (fitted_identity(a.fitted), fitted_identity(b.fitted)),
        "learning": (_sums(a), _sums(b)),
    }
    words = {(True, False): "added", (False, True): "removed"}
    return {
        noun: words.get((one == NOTHING, two == NOTHING), "changed")
        for noun, (one, two) in identities.items()
        if one != two
    }


def _sums(state: State) -> bytes:
    """Return the identity of what a state has learned, by the names of classes."""
    learned = state.learned
    if learned is None:
        return NOTHING
    ranks = {state.table.name(slot): slot for slot in learned.by_slot}
    named = learned.moved({ranks[name]: number for number, name in enumerate(sorted(ranks))})
    return hashlib.sha256(repr(sorted(ranks)).encode() + named.identity()).digest()


def _names_compared(state: State, other: State) -> list[str]:
    """Return a state's names, in order, that may differ in the other: on one base, those that changed in either."""
    if not state.base.same(other.base):
        return list(state.names)
    table, count = state.table, len(state.base.block)
    theirs = {slot for slot in {*other.touched, *other.table.removed.tolist()} if slot < count and table.has(slot)}
    return [table.name(slot) for slot in sorted({*state.touched, *theirs})]


def _same_day(one: ClassInfo, two: ClassInfo) -> tuple[ClassInfo, ClassInfo]:
    """Return the info of a class in both banks; if both have the time when it was added, it does not count."""
    return (one, dataclasses.replace(two, added=one.added)) if one.added and two.added else (one, two)


def _renamed(a: State, b: State, removed: list[str], added: list[str]) -> dict[str, str]:
    """Return pairs with the same row, by its 16-byte digest; rows that several classes have are left out."""
    left: dict[bytes, list[str]] = {}
    came: dict[bytes, list[str]] = {}
    for bank, names, rows in ((a, removed, left), (b, added, came)):
        for name in names:
            row = np.ascontiguousarray(bank.rows_at([bank.index[name]])[0])
            rows.setdefault(hashlib.blake2b(row.data, digest_size=16).digest(), []).append(name)
    return {old[0]: new[0] for row, old in left.items() if len(old) == 1 and len(new := came.get(row, [])) == 1}


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
    at, before = utc_now(), _removals(bank, other) if removals else []
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
    training = [noun for noun, change in _difference_in_training(bank, other).items() if change != "removed"]
    notes = [
        *([f"dropped aliases {listed(gone)}"] if gone else []),
        *(f"left out {noun} of the other" for noun in training),
    ]
    changes, words = _class_changes(bank, other, rows, info, at)
    return committed(bank, "merge", [*before, *changes, *photo_changes(bank, photos)], by, words, notes, at)


def _class_changes(
    bank: ClassBank, other: ClassBank, rows: Mapping[str, int], info: Mapping[str, ClassInfo], at: str
) -> tuple[list[Change], list[str]]:
    """Return the changes that put the other's ``rows`` by name, and these in words; of others only the info changes."""
    names = list(dict.fromkeys([*rows, *info]))
    positions = {name: bank.index.get(name) for name in names}
    staying = [position for name, position in positions.items() if name not in rows and position is not None]
    new = np.concatenate([other.rows_at([*rows.values()]), bank.rows_at(staying)])
    info_by_name = {name: info.get(name) or (bank.info_of(name) if name in bank.index else PLAIN) for name in names}
    exact = any(position is None and bank.lookup.name(name) is not None for name, position in positions.items())
    return class_changes(bank, positions, new, info_by_name, at, exact=exact)


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


def _matches(bank: ClassBank, other: ClassBank) -> dict[str, int | None]:
    """Return the bank's position of each class of the other one; no position is used twice."""
    names = _names_compared(other, bank)
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
