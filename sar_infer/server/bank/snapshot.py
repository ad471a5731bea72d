"""The classes of a bank at one moment, as the routes show them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sar_infer.bank import ClassBank

SEARCHED = 10_000
"""The most classes with which a name is compared while its request waits."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One class, with the phrases that were embedded for it; ``added`` if it came, or got its row, at run time.

    ``photos`` is the number that it got at run time, ``photos_only`` says that its name means nothing.
    """

    name: str
    origin: Literal["bundle", "added"]
    phrases: tuple[str, ...]
    photos: int = 0
    photos_only: bool = False

    @classmethod
    def of(cls, bank: ClassBank, name: str) -> Entry:
        """Return a class of a bank by its exact name."""
        info, photos = bank.info_of(name), bank.photos_of(name)
        origin: Literal["bundle", "added"] = "bundle" if info.added is None else "added"
        return cls(name, origin, bank.phrases(name), len(photos), photos.photos_only)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A bank and the bundle's own; neither changes, so that names, rows and phrases always agree."""

    bank: ClassBank
    base: ClassBank

    def __post_init__(self) -> None:
        """Compute what requests ask for, in this thread and not when they ask."""
        _ = self.bank.added_count, self.removed, self.etag
        self.bank.lookup.name("")

    @property
    def etag(self) -> str:
        """Return the digest of names, rows, photos and what these taught."""
        return self.bank.content_digest

    def find(self, name: str) -> Entry | None:
        """Return the class of a name in any spelling; None if there is none."""
        row = self.bank.lookup.name(name)
        return None if row is None else Entry.of(self.bank, self.bank.names[row])

    def missing(self, name: str) -> str:
        """Say that no class has this name, and which one may be meant; for a large bank that takes too long."""
        return self.bank.lookup.missing(name, hint=len(self.bank.names) <= SEARCHED)

    def page(
        self, prefix: str, offset: int, limit: int, *, like: str = "", removed: bool = False
    ) -> tuple[list[Entry], int]:
        """Return some of the classes that have a text in their names, in the bank's order, and the number of all those.

        Args:
            prefix: Text that names begin with, in any case; "" chooses all.
            offset: Number of classes to leave out.
            limit: Number of classes to return at most.
            like: Text that names contain, in any case.
            removed: Choose from the bundle's classes that were removed instead.
        """
        bank = self.base if removed else self.bank
        names: Sequence[str] = self.removed if removed else bank.names
        start, fragment = prefix.casefold(), like.casefold()
        if start or fragment:
            keys = map(str.casefold, names)
            names = [name for name, key in zip(names, keys, strict=True) if key.startswith(start) and fragment in key]
        return [Entry.of(bank, name) for name in names[offset : offset + limit]], len(names)

    @functools.cached_property
    def removed(self) -> tuple[str, ...]:
        """Return the bundle's names of its classes that the bank does not have, by any name, in the bundle's order."""
        names: Sequence[str] = self.base.names
        if self.bank.base.same(self.base.base):  # then few can be missing
            table = self.bank.table
            anew = set(table.renamed).intersection(table.replaced.tolist())
            slots = sorted(slot for slot in {*table.removed.tolist(), *anew} if slot < len(names))
            names = [names[slot] for slot in slots]
        return tuple(name for name in names if self.bank.lookup.name(name) is None)
