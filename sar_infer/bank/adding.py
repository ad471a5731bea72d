"""Classes come into a bank: new names with their rows, or the classes of another bank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.history import Action, Stack, Undo, recorded
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.steps import next_step, set_info, utc_now
from sar_infer.errors import BankError, ClassNameError
from sar_infer.names import name_key
from sar_infer.packed_names import PackedNames

Floats = npt.NDArray[np.float32]
Conflict = Literal["keep", "take", "refuse"]
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
    places = _places(bank, names)
    return _put(bank, "add", dict(zip(names, places, strict=True)), rows, info, by)


def merge(bank: ClassBank, other: ClassBank, conflict: Conflict = "refuse", *, by: str = "") -> ClassBank:
    """Add the classes of another bank of the same encoder, with what is known of them.

    Args:
        bank: Where to.
        other: Where from.
        conflict: What becomes of a class that both have with different rows: ``keep`` the bank's, ``take`` the other's
            with what is known of it, or ``refuse``.
        by: Who or what adds them, such as a command line.

    Raises:
        ClassNameError: a conflict is refused, or a name is another name of a class.
        BankError: the other bank belongs to another encoder, or an alias clashes.
    """
    if other.encoder_digest != bank.encoder_digest:
        raise BankError(
            f"bank of another encoder: expected {bank.encoder_digest}, the other has {other.encoder_digest}"
        )
    chosen: dict[str, int | None] = {}
    taken: list[int] = []
    for number, (name, place) in enumerate(zip(other.names, _places(bank, other.names), strict=True)):
        if place is not None:
            same = bool(np.abs(bank.embeddings[place] - other.embeddings[number]).max(initial=0) <= _SAME_ROW)
            if conflict == "refuse" and not same:
                raise ClassNameError(f"both banks have class {name!r}, with different rows; keep one or take the other")
            if same or conflict == "keep":
                continue
        chosen[name] = place
        taken.append(number)
    info = {name: other.info.get(name, PLAIN) for name in chosen}
    return _put(bank, "merge", chosen, other.embeddings[taken], info, by)


def _put(
    bank: ClassBank,
    action: Action,
    places: Mapping[str, int | None],
    rows: Floats,
    info: Mapping[str, ClassInfo],
    by: str,
) -> ClassBank:
    """Rows (N, D) to their places by name; None is the end."""
    at, known = utc_now(), dict(bank.info)
    before: dict[str, ClassInfo | None] = {}
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
        differs = bool(np.abs(bank.embeddings[place] - rows[number]).max(initial=0) > _SAME_ROW)
        now = dataclasses.replace(wanted, added=at if differs or wanted.phrases != was.phrases else was.added)
        if differs:
            replaced[place] = number
        if now != was:
            before[has] = bank.info.get(has)
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
    summary = ", ".join(f"{what} {count:,}" for what, count in counts.items() if count)
    step = next_step(bank, action, summary, by, Undo(len(fresh), 0, len(replaced), info=before), at)
    history, stack = recorded(bank.history, bank.retired.pushed(old), step)
    return dataclasses.replace(
        bank,
        names=PackedNames.chain([bank.names, [names[number] for number in fresh]]),
        embeddings=embeddings,
        info=known,
        history=history,
        stack=stack,
    )


def _places(bank: ClassBank, names: Sequence[str]) -> list[int | None]:
    """The row of each name that the bank has in any spelling."""
    seen: set[str] = set()
    places: list[int | None] = []
    for name in names:
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
