"""The classes that one call chooses from: those of the bank, and names given with the call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank
from sar_infer.errors import ClassNameError, InputError
from sar_infer.head import ClassHead
from sar_infer.names import name_key
from sar_infer.results import Branch, Source

Classes = Sequence[str] | Mapping[str, str | list[str] | tuple[str, ...]]
"""Class names, or phrases by class name."""
Phrases = dict[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class ClassSet:
    """Class names, where each comes from, unit rows (C, D), and a head for exactly these classes, in this order."""

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    embeddings: npt.NDArray[np.float32]
    head: ClassHead | None = None

    @property
    def branch(self) -> Branch:
        """What answers for these classes."""
        return "text" if self.head is None else "head+text"


def phrases_by_name(classes: Classes | None) -> Phrases:
    """The phrases that stand for each name, a name standing for itself; a repeated name counts once.

    Raises:
        ClassNameError: a name has no phrases, or something is not text.
        InputError: ``classes`` is a single string.
    """
    if isinstance(classes, str):
        raise InputError(f"classes: expected a list of names or phrases by name, got the string {classes!r}")
    pairs = classes.items() if isinstance(classes, Mapping) else ((name, name) for name in classes or ())
    result: Phrases = {}
    seen: set[str] = set()
    for name, value in pairs:
        phrases = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not phrases:
            raise ClassNameError(f"class name {name!r} has no phrases")
        for text in (name, *phrases):
            if not isinstance(text, str):
                raise ClassNameError(f"class name: expected text, got {text!r}")
        if name_key(name) not in seen:
            seen.add(name_key(name))
            result[name] = phrases
    return result


def build_class_set(
    bank: ClassBank,
    given: Phrases,
    only: bool,
    embed: Callable[[Sequence[tuple[str, ...]]], npt.NDArray[np.float32]],
) -> ClassSet:
    """The bank's classes, then the given ones; with ``only``, the given ones.

    A given name that the bank has takes the bank's row and leaves its place to it, so that no class stands twice. Only
    where it comes with phrases of its own is it encoded, and replaces the bank's.

    Args:
        bank: Classes with known rows.
        given: Phrases by name.
        only: Leave out the bank's other classes.
        embed: Gives the row of each tuple of phrases.

    Raises:
        InputError: no class is left.
    """
    if not given and not only and bank.names:
        return ClassSet(bank.names, tuple("bank" for _ in bank.names), bank.embeddings)
    known = {name_key(name): row for row, name in enumerate(bank.names)} if given else {}
    from_bank = {n: known[name_key(n)] for n, phrases in given.items() if phrases == (n,) and name_key(n) in known}
    extended = [name for name in given if name not in from_bank]
    new_rows = dict(zip(extended, embed([given[name] for name in extended]), strict=True)) if extended else {}
    shadowed = {known.get(name_key(name)) for name in given}
    kept = [] if only else [row for row in range(len(bank.names)) if row not in shadowed]
    names = [bank.names[row] for row in kept] + list(given)
    if not names:
        raise InputError("no class to choose from: give class names, or a bank that has some")
    sources: list[Source] = ["bank" for _ in kept]
    sources += ["bank" if name in from_bank else "extended" for name in given]
    rows = [bank.embeddings[kept]]
    rows += [(bank.embeddings[from_bank[n]] if n in from_bank else new_rows[n])[np.newaxis] for n in given]
    return ClassSet(tuple(names), tuple(sources), np.concatenate(rows))


def with_head(classes: ClassSet, head: ClassHead | None, bank: ClassBank) -> ClassSet:
    """The classes with the head, if they are exactly its own, with the rows that they have in the bundle's bank.

    Args:
        classes: The classes of a call, from any bank.
        head: The bundle's, which has each name once.
        bank: The bundle's, which has every name of the head.
    """
    if head is None or len(classes.names) != len(head.names) or "extended" in classes.sources:
        return classes
    columns = {name_key(name): column for column, name in enumerate(head.names)}
    keys = [name_key(name) for name in classes.names]
    if set(keys) != set(columns):
        return classes
    known = {name_key(name): row for row, name in enumerate(bank.names)}
    if not np.array_equal(classes.embeddings, bank.embeddings[[known[key] for key in keys]]):
        return classes
    return dataclasses.replace(classes, head=head.reordered([columns[key] for key in keys]))
