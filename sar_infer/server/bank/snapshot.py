"""The classes of a bank at one moment, as the routes show them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sar_infer.bank import ClassBank, Entry

SEARCHED = 10_000
"""The most classes with which a name is compared while its request waits."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One class, with the phrases that were embedded; ``added`` if it, or its embedding, was added at run time.

    ``photos`` is the number that it got at run time, ``photos_only`` that its name carries no meaning.
    """

    name: str
    origin: Literal["bundle", "added"]
    phrases: tuple[str, ...]
    photos: int = 0
    photos_only: bool = False

    @classmethod
    def of(cls, entry: Entry) -> Shown:
        """Return a class of a bank."""
        origin: Literal["bundle", "added"] = "bundle" if entry.added is None else "added"
        return cls(entry.name, origin, entry.texts, len(entry.photos), entry.photos_only)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A bank at one moment, and the bundle's own; neither changes."""

    bank: ClassBank
    base: ClassBank

    @property
    def etag(self) -> str:
        """Return the digest of names, embeddings, photos and what these taught."""
        return self.bank.content_digest

    def find(self, name: str) -> Shown | None:
        """Return the class of a name in any spelling; None if there is none."""
        position = self.bank.lookup.name(name)
        return None if position is None else Shown.of(self.bank.entries[self.bank.keys[position]])

    def missing(self, name: str) -> str:
        """Return the message that no class has this name; of a small bank, with names that are spelled alike."""
        return self.bank.lookup.missing(name, hint=len(self.bank.names) <= SEARCHED)

    def page(
        self, prefix: str, offset: int, limit: int, *, like: str = "", removed: bool = False
    ) -> tuple[list[Shown], int]:
        """Return some of the classes that have a text in their names, in the bank's order, and the number of all those.

        Args:
            prefix: Text that names begin with, in any case; "" chooses all.
            offset: Number of classes to leave out.
            limit: Number of classes to return at most.
            like: Text that names contain, in any case.
            removed: Choose from the bundle's classes that were removed instead.
        """
        entries: Sequence[Entry] = self.removed if removed else [*self.bank.entries.values()]
        start, fragment = prefix.casefold(), like.casefold()
        if start or fragment:
            entries = [e for e in entries if (key := e.name.casefold()).startswith(start) and fragment in key]
        return [Shown.of(entry) for entry in entries[offset : offset + limit]], len(entries)

    @functools.cached_property
    def removed(self) -> tuple[Entry, ...]:
        """Return the bundle's classes that were removed from the bank, in the bundle's order."""
        if self.bank.base is None:
            return ()
        had = self.base.entries
        gone = [had[key] for key in sorted(self.bank.changes.keys() & had.keys(), key=self.base.positions.__getitem__)]
        return tuple(entry for entry in gone if self.bank.lookup.name(entry.name) is None)
