"""The classes that one call chooses from: those of the bank, and names given with the call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank
from sar_infer.errors import ClassNameError, InputError
from sar_infer.names import name_key
from sar_infer.results import Source

Classes = Sequence[str] | Mapping[str, str | list[str] | tuple[str, ...]]
"""Class names, or phrases by class name."""
Phrases = dict[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class ClassSet:
    """Class names, where each comes from, and unit rows (C, D)."""

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    embeddings: npt.NDArray[np.float32]


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
