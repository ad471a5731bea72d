"""Edits of a bank's classes as pure functions: each returns a new bank with one more step of history.

``by`` is the author of the change, such as a command line. If nothing would change, the same bank is returned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.history import Action, Stack, Undo, before, utc_now, with_step
from sar_infer.bank.info import PLAIN, ClassInfo, check_text, set_info
from sar_infer.errors import BankError, ClassNameError
from sar_infer.storage.packed_names import PackedNames
from sar_infer.text.names import name_key

_SAME_ROW = 1e-5
"""Largest difference between two rows of the same text; runs of an encoder differ by less."""


def add(
    bank: ClassBank, names: Sequence[str], rows: Floats, info: Mapping[str, ClassInfo] | None = None, *, by: str = ""
) -> ClassBank:
    """Add classes at the end; one that the bank has in any spelling keeps its place, and gets the row if it differs.

    Args:
        bank: The bank.
        names: N names.
        rows: (N, D) float32, unit rows of the bank's encoder.
        info: What is known of them, by these names; ``added`` is set here. A class that the bank has keeps aliases,
            background and threshold if nothing is given for it.
        by: The author of the change.

    Raises:
        ClassNameError: a name stands twice, or is another name of a class.
        BankError: a row, a name or an alias is unsound.
    """
    info = info or {}
    if rows.shape != (len(names), bank.embeddings.shape[1]):
        raise BankError(f"expected rows ({len(names)}, {bank.embeddings.shape[1]}), got {rows.shape}")
    stray = next(iter(info.keys() - set(names)), None)
    if stray is not None:
        raise ClassNameError(f"info is given for {stray!r:.80}, which is not among the names to add")
    places = places_of(bank, names)
    return put(bank, "add", dict(zip(names, places, strict=True)), rows, info, by)


def remove(bank: ClassBank, names: Iterable[str], *, by: str = "") -> ClassBank:
    """Remove classes, by name or alias.

    Raises:
        ClassNameError: the bank does not have one, or ``names`` is a single string.
    """
    if isinstance(names, str):
        raise ClassNameError(f"expected a list of names to remove, got the string {names!r:.80}")
    rows = np.unique(np.array([bank.lookup.find(name) for name in names], dtype=np.int64))
    if not rows.size:
        return bank
    kept = np.ones(len(bank.names), dtype=np.bool_)
    kept[rows] = False
    gone = Stack(PackedNames.of(bank.names[row] for row in rows.tolist()), bank.embeddings[rows], rows)
    info = dict(bank.info)
    had = {row: info.pop(name) for row, name in zip(rows.tolist(), gone.names, strict=True) if name in info}
    undo = Undo(removed=len(rows), info=before(had))
    names_kept = [name for name, keep in zip(bank.names, kept.tolist(), strict=True) if keep]
    summary, rows_kept = f"removed {listed(gone.names)}", bank.embeddings[kept]
    return with_step(bank, "remove", summary, by, undo, gone, names=names_kept, embeddings=rows_kept, info=info)


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
        BankError: the row is unsound.
    """
    place = bank.lookup.find(old)
    name, owner = bank.names[place], bank.lookup.get(new)
    was = bank.info.get(name, PLAIN)
    if not new.strip():
        raise ClassNameError("the new name is empty")
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
    names = list(bank.names)
    names[place] = new
    summary = f"renamed {name!r} to {new!r}"
    if row is None:
        return with_step(bank, "rename", summary, by, undo, names=names, info=info)
    gone = Stack(PackedNames.of([name]), bank.embeddings[[place]], np.array([place], dtype=np.int64))
    rows = bank.embeddings.copy()
    rows[place] = row
    summary += ", embedded anew"
    return with_step(bank, "rename", summary, by, undo, gone, names=names, embeddings=rows, info=info)


def amend(bank: ClassBank, changes: Mapping[str, ClassInfo], *, by: str = "") -> ClassBank:
    """Set aliases, background and threshold of classes, by name or alias; phrases and ``added`` stay unchanged.

    Raises:
        ClassNameError: the bank does not have a class.
        BankError: an alias is also the name or an alias of another class.
    """
    info = dict(bank.info)
    had: dict[int, ClassInfo | None] = {}
    for text, wanted in changes.items():
        row = bank.lookup.find(text)
        name = bank.names[row]
        was = info.get(name, PLAIN)
        now = dataclasses.replace(wanted, phrases=was.phrases, added=was.added)
        if now != was:
            had.setdefault(row, info.get(name))
            set_info(info, name, now)
    if not had:
        return bank
    summary = f"changed {listed([bank.names[row] for row in had])}"
    return with_step(bank, "amend", summary, by, Undo(info=before(had)), info=info)


def put(
    bank: ClassBank,
    action: Action,
    places: Mapping[str, int | None],
    rows: Floats,
    info: Mapping[str, ClassInfo],
    by: str,
    note: str = "",
) -> ClassBank:
    """Put rows (N, D) in their places by name, None being the end; ``note`` is appended to the step's summary."""
    at, known = utc_now(), dict(bank.info)
    had: dict[int, ClassInfo | None] = {}
    fresh: list[int] = []
    replaced: dict[int, int] = {}
    changed = 0
    for number, (name, place) in enumerate(places.items()):
        given = info.get(name)
        if place is None:
            fresh.append(number)
            known[name] = dataclasses.replace(_plainer(given or PLAIN, name), added=at)
            continue
        has = bank.names[place]
        was = bank.info.get(has, PLAIN)
        wanted = _plainer(given or dataclasses.replace(was, phrases=()), has)
        differs = not same_row(bank.embeddings[place], rows[number])
        now = dataclasses.replace(wanted, added=at if differs or wanted.phrases != was.phrases else was.added)
        if differs:
            replaced[place] = number
        if now != was:
            had[place] = bank.info.get(has)
            set_info(known, has, now)
            changed += not differs
    if not (fresh or replaced or changed):
        return bank
    where = np.array(list(replaced), dtype=np.int64)
    old = Stack(PackedNames.of(bank.names[place] for place in replaced), bank.embeddings[where], where)
    embeddings = np.concatenate([bank.embeddings, rows[fresh]])
    embeddings[where] = rows[list(replaced.values())]
    names = list(places)
    counts = {"added": len(fresh), "replaced": len(replaced), "changed": changed}
    return with_step(
        bank,
        action,
        ", ".join(f"{what} {count:,}" for what, count in counts.items() if count) + note,
        by,
        Undo(len(fresh), 0, len(replaced), info=before(had)),
        old,
        at=at,
        names=PackedNames.chain([bank.names, [names[number] for number in fresh]]),
        embeddings=embeddings,
        info=known,
    )


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


def listed(names: Sequence[str]) -> str:
    """Return up to three names in words, more as a number."""
    return ", ".join(map(repr, names)) if len(names) <= 3 else f"{len(names):,} classes"
