"""Edits of a bank's classes as pure functions: each returns a new bank with one more step of history.

``by`` is the author of the change, such as a command line. If nothing would change, the same bank is returned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.history import Action, utc_now, with_new_name, with_step
from sar_infer.bank.info import PLAIN, ClassInfo, check_text, ranges_of, set_info
from sar_infer.bank.photos import Photos, PhotosBefore, PhotoSet, united
from sar_infer.bank.undo import Stack, Undo, before, replaced, spliced
from sar_infer.errors import BankError, ClassNameError
from sar_infer.storage.packed_names import PackedNames
from sar_infer.storage.tensor_file import Joined
from sar_infer.text.names import name_key

_NO_NOTES: Mapping[str, str] = {}
_MOST_NAMED = 3
_SAME_ROW = 1e-5
"""Largest difference between two rows of the same text; runs of an encoder differ by less."""


def add(
    bank: ClassBank,
    names: Sequence[str],
    rows: Floats,
    info: Mapping[str, ClassInfo] | None = None,
    photos: Photos | None = None,
    *,
    by: str = "",
) -> ClassBank:
    """Add classes at the end; one that the bank has in any spelling keeps its place, and gets the row if it differs.

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
        ClassNameError: a name stands twice, or is another name of a class; or there is no such class for photos.
        BankError: a row, a name or an alias is unsound, or photos are of another encoder's size.
    """
    info = info or {}
    if rows.shape != (len(names), bank.rows.shape[1]):
        raise BankError(f"expected rows ({len(names)}, {bank.rows.shape[1]}), got {rows.shape}")
    stray = next(iter(info.keys() - set(names)), None)
    if stray is not None:
        raise ClassNameError(f"info is given for {stray!r:.80}, which is not among the names to add")
    places = dict(zip(names, places_of(bank, names), strict=True))
    together: dict[str, PhotoSet] = {}
    for name, given in (photos or {}).items():
        place = places[name] if name in places else bank.lookup.find(name)
        has = name if place is None else bank.names[place]
        was = together.get(has) or bank.photos.get(has) or PhotoSet.none(bank.rows.shape[1])
        both = united(was, given)
        if both is None:
            raise BankError(
                f"photos of {name!r:.80}: some are kept as a sum alone, here and there, and may be the same"
            )
        together[has] = both.with_photos_only(was.photos_only or given.photos_only)
    return put(bank, "add", places, rows, info, by, photos=together)


def remove_photos(bank: ClassBank, name: str, digests: Iterable[bytes], *, by: str = "") -> ClassBank:
    """Remove photos of a class, by the digests of their pixels; it keeps all else.

    Raises:
        ClassNameError: the bank does not have the class.
        InputError: a photo is not counted for it, or is among those whose rows are no longer kept.
    """
    name = bank.names[bank.lookup.find(name)]
    was = bank.photos.get(name, PhotoSet.none(bank.rows.shape[1]))
    now = was.without(digests)
    none = np.empty((0, bank.rows.shape[1]), np.float32)
    return put(bank, "remove", {}, none, {}, by, photos={name: now})


def set_photos_only(bank: ClassBank, name: str, *, photos_only: bool, by: str = "") -> ClassBank:
    """Say of a class that its name means nothing, so that its photos alone say what it is, or that it does.

    Raises:
        ClassNameError: the bank does not have the class.
    """
    name = bank.names[bank.lookup.find(name)]
    now = bank.photos.get(name, PhotoSet.none(bank.rows.shape[1])).with_photos_only(photos_only)
    none = np.empty((0, bank.rows.shape[1]), np.float32)
    return put(bank, "amend", {}, none, {}, by, photos={name: now})


def remove(bank: ClassBank, names: Iterable[str], *, by: str = "") -> ClassBank:
    """Remove classes, by name or alias.

    Raises:
        ClassNameError: the bank does not have one, or ``names`` is a single string.
    """
    if isinstance(names, str):
        raise ClassNameError(f"expected a list of names to remove, got the string {names!r:.80}")
    names = list(names)
    rows = np.array(sorted({bank.lookup.find(name) for name in names}), dtype=np.int64)
    if not rows.size:
        return bank
    by_alias = {name: f"given by its alias {alias!r}" for name, alias in aliases_among(bank, names).items()}
    gone = Stack(PackedNames.of(bank.names[row] for row in rows.tolist()), bank.rows_at(rows), rows)
    info = dict(bank.info)
    had = {row: info.pop(name) for row, name in zip(rows.tolist(), gone.names, strict=True) if name in info}
    pictured = {row: name for row, name in zip(rows.tolist(), gone.names, strict=True) if name in bank.photos}
    undo = Undo(removed=len(rows), info=before(had), photos=tuple(map(PhotosBefore, pictured)))
    gone_photos = [bank.photos[name] for name in pictured.values()]
    return with_step(
        bank,
        "remove",
        f"removed {listed(gone.names, by_alias)}",
        by,
        undo,
        gone,
        gone_photos=gone_photos,
        lost=gone.names,
        names=PackedNames.chain(spliced(bank.names, ranges_of(rows))),
        embeddings=Joined.of(spliced(bank.rows, ranges_of(rows))),
        info=info,
        photos={name: one for name, one in bank.photos.items() if name not in set(gone.names)},
    )


def aliases_among(bank: ClassBank, names: Iterable[str]) -> dict[str, str]:
    """Return those of the names that are aliases, by class."""
    found = ((bank.lookup.alias(name), name) for name in names if bank.lookup.name(name) is None)
    return {bank.names[row]: name for row, name in found if row is not None}


def rename(bank: ClassBank, old: str, new: str, row: Floats | None = None, *, by: str = "") -> ClassBank:
    """Give a class another name; it keeps its place, and, unless ``row`` is given, its row and phrases.

    Args:
        bank: The bank.
        old: Name or alias of the class.
        new: Its new name; if this is one of its aliases, the alias goes.
        row: (D,) float32, the unit row of the new name, which replaces the one that the class has.
        by: The author of the change.

    Raises:
        ClassNameError: there is no such class, another one has the new name, or the new name is empty.
        BankError: the row is unsound, or the new name has characters that no file can hold.
    """
    place = bank.lookup.find(old)
    name, owner = bank.names[place], bank.lookup.get(new)
    was = bank.info.get(name, PLAIN)
    if not new.strip():
        raise ClassNameError("the new name is empty")
    check_text("name", new)
    if name == new:
        plain = {name: dataclasses.replace(was, phrases=())}
        return bank if row is None else add(bank, [name], row[np.newaxis], plain, by=by)
    if owner not in (None, place):
        raise ClassNameError(f"{new!r} already stands for class {bank.names[owner]!r}")
    phrases = was.phrases or (name,)
    aliases = tuple(alias for alias in was.aliases if name_key(alias) != name_key(new))
    renamed = dataclasses.replace(was, phrases=() if phrases == (new,) else phrases, aliases=aliases)
    if row is not None:
        renamed = dataclasses.replace(renamed, phrases=(), added=utc_now())
    info = dict(bank.info)
    undo = Undo(replaced=int(row is not None), renamed={new: name}, info=before({place: info.pop(name, None)}))
    set_info(info, new, renamed)
    names = PackedNames.chain(spliced(bank.names, ranges_of([place]), [new]))
    photos = {new if has == name else has: one for has, one in bank.photos.items()}
    summary = f"renamed {name!r} to {new!r}"
    if row is None:
        if was.added is None:
            bank = dataclasses.replace(bank, provenance=with_new_name(bank.provenance, name, new))
        return with_step(bank, "rename", summary, by, undo, names=names, info=info, photos=photos)
    where = np.array([place], dtype=np.int64)
    gone = Stack(PackedNames.of([name]), bank.rows_at(where), where)
    rows = replaced(bank.rows, where, row[np.newaxis])
    summary += ", embedded anew"
    changes: dict[str, Any] = {"names": names, "embeddings": rows, "info": info, "photos": photos}
    return with_step(bank, "rename", summary, by, undo, gone, lost=[name], **changes)


def amend(bank: ClassBank, changes: Mapping[str, ClassInfo], *, by: str = "") -> ClassBank:
    """Set aliases, background and threshold of classes, by name or alias; phrases and ``added`` stay unchanged.

    Raises:
        ClassNameError: the bank does not have a class.
        BankError: an alias is also the name or an alias of another class.
    """
    info = dict(bank.info)
    had: dict[int, ClassInfo | None] = {}
    fields: dict[str, str] = {}
    for text, wanted in changes.items():
        row = bank.lookup.find(text)
        name = bank.names[row]
        was = info.get(name, PLAIN)
        now = dataclasses.replace(wanted, phrases=was.phrases, added=was.added)
        if now != was:
            had.setdefault(row, info.get(name))
            fields[name] = ", ".join(key for key, value in vars(now).items() if value != getattr(was, key))
            set_info(info, name, now)
    if not had:
        return bank
    summary = f"changed {listed([*fields], fields)}"
    return with_step(bank, "amend", summary, by, Undo(info=before(had)), info=info)


def put(
    bank: ClassBank,
    action: Action,
    places: Mapping[str, int | None],
    rows: Floats,
    info: Mapping[str, ClassInfo],
    by: str,
    note: str = "",
    photos: Photos | None = None,
) -> ClassBank:
    """Put rows (N, D) in their places by name, None being the end; ``note`` is appended to the step's summary.

    ``photos`` are all that a class has from now on, by its name afterwards.
    """
    at, known = utc_now(), dict(bank.info)
    had: dict[int, ClassInfo | None] = {}
    fresh: list[int] = []
    moved: dict[int, int] = {}
    changed, parted = [], []
    for number, (name, place) in enumerate(places.items()):
        given = info.get(name)
        if place is None:
            fresh.append(number)
            known[name] = dataclasses.replace(_plainer(given or PLAIN, name), added=at)
            continue
        has = bank.names[place]
        was = bank.info.get(has, PLAIN)
        wanted = _plainer(given or dataclasses.replace(was, phrases=()), has)
        differs = not same_row(bank.rows_at(np.array(place)), rows[number])
        now = dataclasses.replace(wanted, added=at if differs or wanted.phrases != was.phrases else was.added)
        if differs:
            moved[place] = number
        if now != was:
            had[place] = bank.info.get(has)
            set_info(known, has, now)
            changed += [] if differs else [has]
            parted += [has] if now.added else []
    pictured, photos_before, gone_photos = _photo_changes(bank, photos or {})
    if not (fresh or moved or changed or pictured):
        return bank
    where = np.array(list(moved), dtype=np.int64)
    old = Stack(PackedNames.of(bank.names[place] for place in moved), bank.rows_at(where), where)
    embeddings = Joined.of([replaced(bank.rows, where, rows[list(moved.values())]), rows[fresh]])
    names = list(places)
    done = {"added": [names[number] for number in fresh], "replaced": old.names, "changed": changed}
    summary = [f"{what} {listed(of) if len(of) <= _MOST_NAMED else f'{len(of):,}'}" for what, of in done.items() if of]
    return with_step(
        bank,
        action,
        ", ".join([*summary, *_photo_summary(bank, pictured)]) + note,
        by,
        Undo(len(fresh), 0, len(moved), info=before(had), photos=photos_before),
        old,
        at=at,
        gone_photos=gone_photos,
        photos={name: one for name, one in {**bank.photos, **pictured}.items() if one},
        lost=parted,
        names=PackedNames.chain([bank.names, done["added"]]),
        embeddings=embeddings,
        info=known,
    )


def _photo_changes(
    bank: ClassBank, photos: Photos
) -> tuple[dict[str, PhotoSet], tuple[PhotosBefore, ...], list[PhotoSet]]:
    """Return the photos that differ from the bank's, how they are put back, and the sets that this takes."""
    none = PhotoSet.none(bank.rows.shape[1])
    limited = {name: one.limited() for name, one in photos.items()}
    changed = {name: one for name, one in limited.items() if one.seal != bank.photos.get(name, none).seal}
    had: list[PhotosBefore] = []
    gone: list[PhotoSet] = []
    for name, one in changed.items():
        row = bank.index.get(name)
        if row is None:  # a new class, which goes with all its photos
            continue
        was = bank.photos.get(name, none)
        appended = one.appended_to(was)
        had.append(PhotosBefore(row, appended))
        gone += [was] if appended is None else []
    return changed, tuple(had), gone


def _photo_summary(bank: ClassBank, changed: Photos) -> list[str]:
    """Return what happens to photos, in words."""
    none = PhotoSet.none(bank.rows.shape[1])
    pairs = [(bank.photos.get(name, none), now) for name, now in changed.items()]
    counts = {
        "added {} to {}": [len(now.known - was.known) for was, now in pairs],
        "removed {} from {}": [len(was.known - now.known) for was, now in pairs],
    }
    found = []
    for text, numbers in counts.items():
        count, names = sum(numbers), [name for name, number in zip(changed, numbers, strict=True) if number]
        if count:
            found.append(text.format(f"{count:,} photo{'s' if count > 1 else ''}", listed(names)))
    for flag, text in ((True, "photos only: {}"), (False, "named: {}")):
        turned = zip(changed, pairs, strict=True)
        if names := [
            name for name, (was, now) in turned if was.photos_only != now.photos_only and now.photos_only == flag
        ]:
            found.append(text.format(listed(names)))
    return found


def same_row(one: Floats, two: Floats) -> bool:
    """Return True if two rows (D,) are of the same text; a row with NaN equals no other."""
    return bool(np.abs(one - two).max(initial=0) <= _SAME_ROW)


def places_of(bank: ClassBank, names: Sequence[str]) -> list[int | None]:
    """Return the row of each name that the bank has in any spelling, None for a new name; check what needs no rows.

    Raises:
        ClassNameError: a name stands twice, or is another name of a class.
        BankError: a name is unsound.
    """
    seen: set[str] = set()
    places: list[int | None] = []
    for name in names:
        check_text("name", name)
        if name_key(name) in seen:
            raise ClassNameError(f"class name {name!r:.80} stands more than once")
        seen.add(name_key(name))
        owner = bank.lookup.alias(name)
        if owner is not None:
            raise ClassNameError(
                f"{name!r:.80} is another name of class {bank.names[owner]!r}; remove that alias first"
            )
        places.append(None if bank.lookup.name(name) is None else bank.lookup.find(name))
    return places


def _plainer(item: ClassInfo, name: str) -> ClassInfo:
    """Return the info without its phrases if they are the name alone."""
    return dataclasses.replace(item, phrases=()) if item.phrases == (name,) else item


def listed(names: Sequence[str], notes: Mapping[str, str] = _NO_NOTES) -> str:
    """Return up to three names in words, with the notes on them, more as a number."""
    noted = (f"{name!r} ({notes[name]})" if name in notes else repr(name) for name in names)
    return ", ".join(noted) if len(names) <= _MOST_NAMED else f"{len(names):,} classes"
