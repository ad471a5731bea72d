"""Changes of a bank's classes as pure functions: each gives a new bank with one more step of history.

``by`` says who or what makes the change, such as a command line. Where nothing would change, the same bank comes back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from sar_infer.bank.adding import add
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.groups import before
from sar_infer.bank.history import Stack, Undo, recorded
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.steps import listed, next_step, set_info, utc_now, with_step
from sar_infer.errors import ClassNameError
from sar_infer.storage.packed_names import PackedNames
from sar_infer.text.names import name_key


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
    step = next_step(bank, "remove", f"removed {listed(gone.names)}", by, undo)
    history, stack = recorded(bank.history, bank.retired.pushed(gone), step)
    names_kept = [name for name, keep in zip(bank.names, kept.tolist(), strict=True) if keep]
    return dataclasses.replace(
        bank, names=names_kept, embeddings=bank.embeddings[kept], info=info, history=history, stack=stack
    )


def rename(
    bank: ClassBank, old: str, new: str, row: npt.NDArray[np.float32] | None = None, *, by: str = ""
) -> ClassBank:
    """Give a class another name; it keeps its place, and its row with the phrases that this was made from, or gets one.

    Args:
        bank: Which bank.
        old: Name or alias of the class.
        new: Its name from now on; an alias of its own stops being one.
        row: (D,) float32, the unit row of the new name, to take the place of the one that the class has.
        by: See above.

    Raises:
        ClassNameError: there is no such class, another one has the new name, or this is empty.
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
    """Set aliases, background and threshold of classes, by name or alias; phrases and ``added`` stay what they are.

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
