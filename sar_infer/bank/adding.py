"""Classes come into a bank: new names with their rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.groups import before
from sar_infer.bank.history import Action, Stack, Undo, recorded
from sar_infer.bank.info import PLAIN, ClassInfo, check_text
from sar_infer.bank.steps import next_step, set_info, utc_now
from sar_infer.errors import BankError, ClassNameError
from sar_infer.storage.packed_names import PackedNames
from sar_infer.text.names import name_key

Floats = npt.NDArray[np.float32]
_SAME_ROW = 1e-5
"""Largest difference between two rows of the same text; runs of an encoder differ by less."""


def add(
    bank: ClassBank, names: Sequence[str], rows: Floats, info: Mapping[str, ClassInfo] | None = None, *, by: str = ""
) -> ClassBank:
    """Add classes at the end; one that the bank has in any spelling keeps its place, and gets the row where it differs.

    Where nothing would change, the same bank comes back.

    Args:
        bank: Where to.
        names: N names.
        rows: (N, D) float32, unit rows of the bank's encoder.
        info: What is known of them, by these names; ``added`` is set here. A class that the bank has keeps aliases,
            background and threshold where nothing is given for it.
        by: Who or what adds them, such as a command line.

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


def put(
    bank: ClassBank,
    action: Action,
    places: Mapping[str, int | None],
    rows: Floats,
    info: Mapping[str, ClassInfo],
    by: str,
    note: str = "",
) -> ClassBank:
    """Rows (N, D) to their places by name; None is the end. ``note`` stands behind the summary."""
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
    summary = ", ".join(f"{what} {count:,}" for what, count in counts.items() if count) + note
    step = next_step(bank, action, summary, by, Undo(len(fresh), 0, len(replaced), info=before(had)), at)
    history, stack = recorded(bank.history, bank.retired.pushed(old), step)
    return dataclasses.replace(
        bank,
        names=PackedNames.chain([bank.names, [names[number] for number in fresh]]),
        embeddings=embeddings,
        info=known,
        history=history,
        stack=stack,
    )


def same_row(one: Floats, two: Floats) -> bool:
    """Whether two rows (D,) are of the same text; a row that holds no number is like none."""
    return bool(np.abs(one - two).max(initial=0) <= _SAME_ROW)


def places_of(bank: ClassBank, names: Sequence[str]) -> list[int | None]:
    """The row of each name that the bank has in any spelling, None of a new one; all that can be told without rows.

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
    """A name that stands for itself needs no phrases."""
    return dataclasses.replace(item, phrases=()) if item.phrases == (name,) else item
