"""The bank that changes to a bundle's bank give, and the classes in it as they are shown.

It is a function of the bundle's bank and the changes: the bundle's classes in their order without the removed ones,
then the added ones in the order they came. An added class that the bundle has stands in the bundle's place. One that
is just a name, without phrases of its own, then has the bundle's row, as a name given with a call has.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.server.bank.changes import Base, Changes
from sar_infer.text.names import name_key

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Entry:
    """One class of a bank that can change, with what was embedded for it."""

    name: str
    origin: Literal["bundle", "added"]
    phrases: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The classes at one moment; never changes, so that who holds one sees names, rows and phrases that fit."""

    base: Base
    changes: Changes
    bank: ClassBank

    @property
    def etag(self) -> str:
        """Digest of names and rows."""
        return self.bank.content_digest

    def find(self, name: str) -> Entry | None:
        """The class of a name in any spelling."""
        key, base = name_key(name), self.base
        added, row = self.changes.added.get(key), base.rows.get(key)
        if added is not None and not (added.plain and row is not None):
            spelling = added.name if row is None else base.bank.names[row]
            return Entry(spelling, "added", added.phrases)
        if row is None or key in self.changes.removed:
            return None
        return bundled(base, base.bank.names[row])

    @property
    def added(self) -> int:
        """How many classes are not the bundle's."""
        return len(self.changes.own(self.base))

    @functools.cached_property
    def _entries(self) -> tuple[Entry, ...]:
        own, base = self.changes.own(self.base), self.base
        found: list[Entry] = []
        for name, key in zip(base.bank.names, base.keys, strict=True):
            if (added := own.pop(key, None)) is not None:
                found.append(Entry(name, "added", added.phrases))
            elif key not in self.changes.removed:
                found.append(bundled(base, name))
        return (*found, *(Entry(added.name, "added", added.phrases) for added in own.values()))

    @functools.cached_property
    def removed(self) -> tuple[Entry, ...]:
        """The bundle's classes that were removed, in its order."""
        base, removed = self.base, self.changes.removed
        return tuple(
            bundled(base, name) for name, key in zip(base.bank.names, base.keys, strict=True) if key in removed
        )

    def entries(self) -> tuple[Entry, ...]:
        """All classes, in the bank's order."""
        return self._entries


def bundled(base: Base, name: str) -> Entry:
    """A class as the bundle brought it, by the bundle's spelling."""
    return Entry(name, "bundle", base.bank.phrases(name))


def compose(base: Base, changes: Changes, encoded: Mapping[str, Floats], old: ClassBank) -> ClassBank:
    """The bank that the changes give.

    Args:
        base: Where they begin.
        changes: What they are.
        encoded: New rows (D,) by key.
        old: Holds the rows of the other ``changes.own``.
    """
    own = changes.own(base)
    kept = [row for row, key in enumerate(base.keys) if key not in changes.removed]
    names = [base.bank.verified().names[row] for row in kept]
    further = [key for key in own if key not in base.rows]
    places = dict(zip(further, range(len(kept), len(kept) + len(further)), strict=True))
    if len(further) < len(own):
        places |= {key: place for place, row in enumerate(kept) if (key := base.keys[row]) in own}
    names += [own[key].name for key in further]
    rows = np.empty((len(names), base.bank.embeddings.shape[1]), dtype=np.float32)
    np.take(base.bank.embeddings, kept, axis=0, out=rows[: len(kept)], mode="clip")  # "raise" would copy once more
    known = [place for key, place in places.items() if key not in encoded]
    if known:
        rows[known] = old.embeddings[[old.index[names[place]] for place in known]]
    for key, row in encoded.items():
        rows[places[key]] = row
    return ClassBank(names, rows, base.bank.encoder_digest, changes.record(base), info_after(base, changes))


def info_after(base: Base, changes: Changes) -> dict[str, ClassInfo]:
    """What is known of the classes that the changes give; a class keeps what the bundle says beside its phrases."""
    info = {name: item for name, item in base.bank.info.items() if name_key(name) not in changes.removed}
    for key, added in changes.own(base).items():
        name = base.bank.names[base.rows[key]] if key in base.rows else added.name
        phrases = () if added.phrases == (name,) else added.phrases
        info[name] = dataclasses.replace(info.get(name, ClassInfo()), phrases=phrases, added=added.at)
    return info


def names_after(base: Base, changes: Changes) -> tuple[str, ...]:
    """The names of the bank that the changes give."""
    kept = (name for name, key in zip(base.bank.names, base.keys, strict=True) if key not in changes.removed)
    return (*kept, *(added.name for key, added in changes.own(base).items() if key not in base.rows))
