"""Merging banks: the classes of another bank are added, with all that is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.edits import listed, put, same_row
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.photos import Photos, PhotoSet, united
from sar_infer.errors import BankError, ClassNameError
from sar_infer.text.names import name_key

Conflict = Literal["keep", "take", "refuse"]
_CHOOSE = "choose the bank's or the other's with --conflict keep|take"


def merge(bank: ClassBank, other: ClassBank, conflict: Conflict = "refuse", *, by: str = "") -> ClassBank:
    """Add the classes of another bank of the same encoder; a class that both have gets aliases and photos of both.

    Classes are the same if their names are equal to the letter, else in any case and spacing if that is unambiguous.
    An alias that is the name of a class in the merged bank is dropped; the summary of the step says so.

    Args:
        bank: The bank to add to.
        other: The bank whose classes are added.
        conflict: How to settle a class that both have with different rows, thresholds or background, or with photos
            that cannot be told apart, and an alias that stands for two classes: ``keep`` the bank's, ``take`` the
            other's, or ``refuse``. A threshold that only one of them has is no conflict.
        by: The author of the change, such as a command line.

    Raises:
        ClassNameError: there are conflicts, and they are refused; the message says how many.
        BankError: the other bank belongs to another encoder, or is damaged.
    """
    if other.verified().encoder_digest != bank.encoder_digest:
        raise BankError(
            f"bank of another encoder: expected {bank.encoder_digest}, the other has {other.encoder_digest}"
        )
    places = _matches(bank, other)
    rows: dict[str, int] = {}  # of the other bank, by the name in the merged one
    info: dict[str, ClassInfo] = {}
    photos: dict[str, PhotoSet] = {}
    clashes: dict[str, str] = {}  # what differs, by the other bank's name
    spelled = {name: name if (place := places[name]) is None else bank.names[place] for name in other.names}
    for number, (name, place) in enumerate(places.items()):
        theirs, ours = other.info.get(name, PLAIN), bank.info.get(spelled[name], PLAIN)
        their_photos = other.photos.get(name)
        if place is None:
            rows[name], info[name] = number, theirs
            photos |= {} if their_photos is None else {name: their_photos}
            continue
        if their_photos is not None:
            photos[spelled[name]], apart = _photos_of_both(bank, spelled[name], their_photos, take=conflict == "take")
            clashes |= {name: "photos"} if apart and conflict == "refuse" else {}
        same = same_row(bank.embeddings[place], other.embeddings[number])
        if conflict == "refuse" and (what := _clash(ours, theirs, same=same)):
            clashes[name] = what
        if not same and conflict == "take":
            rows[spelled[name]] = number
        both = _united(ours, theirs, same=same, take=conflict == "take")
        if both != ours:
            info[spelled[name]] = both
    _refuse(clashes)
    gone = _settle(bank, other, info, spelled.__getitem__, take=conflict == "take")
    if gone and conflict == "refuse":
        raise ClassNameError(f"alias {gone[0]!r} stands for different classes; {_CHOOSE}")
    note = f", dropped aliases {listed(gone)}" if gone else ""
    return _put(bank, other, rows, info, by, note, photos)


def _photos_of_both(bank: ClassBank, name: str, theirs: PhotoSet, *, take: bool) -> tuple[PhotoSet, bool]:
    """Return the photos of a class that both have, and if a choice was needed.

    Nobody can tell which photos two sums have in common, and a name means something or not.
    """
    ours = bank.photos.get(name, PhotoSet.none(bank.rows.shape[1]))
    both = united(ours, theirs)
    apart = both is None or ours.photos_only != theirs.photos_only
    if both is None:
        return (theirs if take else ours), apart
    return both.with_photos_only((theirs if take else ours).photos_only), apart


def _matches(bank: ClassBank, other: ClassBank) -> dict[str, int | None]:
    """Return the bank's row of each class of the other one; no row is used twice."""
    known = bank.index.for_many(len(other.names))
    exact = {name: row for name in other.names if (row := known.get(name)) is not None}
    taken = set(exact.values())
    places: dict[str, int | None] = {}
    for name in other.names:
        row = exact.get(name)
        if row is None and len(alike := bank.lookup.names(name)) == 1:
            row = None if alike[0] in taken else alike[0]
        if row is not None:
            taken.add(row)
        places[name] = row
    return places


def _clash(ours: ClassInfo, theirs: ClassInfo, *, same: bool) -> str | None:
    """Return the name of a difference that only a choice can settle, None if there is none."""
    if not same:
        return "rows"
    if len({ours.threshold, theirs.threshold} - {None}) > 1:
        return "thresholds"
    return "background flags" if ours.background != theirs.background else None


def _refuse(clashes: Mapping[str, str]) -> None:
    """Raise ClassNameError if there are any."""
    for name, what in clashes.items():
        count = "1 class conflicts" if len(clashes) == 1 else f"{len(clashes):,} classes conflict"
        raise ClassNameError(f"{count}: both banks have class {name!r}, with different {what}; {_CHOOSE}")


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
        threshold=next((found for found in thresholds if found is not None), None),
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
    fresh = {name_key(name) for name in info if bank.index.get(name) is None}
    gone: list[str] = []
    for name, item in {**bank.info, **info}.items():
        kept = []
        for alias in item.aliases:
            key = name_key(alias)
            if owners[key] == name and key not in fresh and bank.lookup.name(alias) is None:
                kept.append(alias)
            elif key != name_key(name):
                gone.append(alias)
        if len(kept) < len(item.aliases):
            info[name] = dataclasses.replace(item, aliases=tuple(kept))
    return gone


def _put(
    bank: ClassBank,
    other: ClassBank,
    rows: Mapping[str, int],
    info: Mapping[str, ClassInfo],
    by: str,
    note: str,
    photos: Photos,
) -> ClassBank:
    """Put the other's ``rows`` by name; a class of which only the info changes keeps its own row."""
    names = list(dict.fromkeys([*rows, *info]))
    places = {name: bank.index.get(name) for name in names}
    staying = [place for name, place in places.items() if name not in rows and place is not None]
    new = np.empty((len(names), bank.embeddings.shape[1]), dtype=np.float32)
    new[: len(rows)] = other.embeddings[list(rows.values())]
    new[len(rows) :] = bank.embeddings[staying]
    known = {name: info.get(name, bank.info.get(name, PLAIN)) for name in names}
    return put(bank, "merge", places, new, known, by, note, photos)
