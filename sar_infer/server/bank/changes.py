"""Classes added to a bundle's bank, and names removed from it, as data; ``snapshot`` makes a bank of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sar_infer.artefact.bundle import Bundle
from sar_infer.bank import ClassBank
from sar_infer.errors import BankError
from sar_infer.text.names import name_key


@dataclass(frozen=True)
class Added:
    """A class that did not come with the bundle, or has other phrases there; ``at`` is a UTC time in ISO form."""

    name: str
    phrases: tuple[str, ...]
    at: str

    @property
    def plain(self) -> bool:
        """The name stands for itself."""
        return self.phrases == (self.name,)


@dataclass(frozen=True, eq=False)
class Base:
    """A bundle's bank, and the row of each name by its key."""

    bundle_digest: str
    bank: ClassBank
    keys: tuple[str, ...]
    rows: Mapping[str, int]

    @classmethod
    def of(cls, bundle: Bundle) -> Base:
        """The bank that a bundle comes with."""
        keys = tuple(map(name_key, bundle.bank.names))
        return cls(bundle.manifest.digest, bundle.bank, keys, {key: row for row, key in enumerate(keys)})

    def gave(self, bank: ClassBank) -> bool:
        """Whether a bank that was saved with its record began as this one."""
        same_encoder = bank.encoder_digest == self.bank.encoder_digest
        return same_encoder and bank.provenance.get("bundle_bank") == self.bank.content_digest


@dataclass(frozen=True)
class Changes:
    """Classes added, and names removed, by key; no key is in both. A removed name need not be the bundle's any more."""

    added: Mapping[str, Added] = field(default_factory=dict)
    removed: Mapping[str, str] = field(default_factory=dict)

    def adding(self, key: str, added: Added) -> Changes:
        """With one more class; one of the same key is replaced and keeps its place."""
        return Changes({**self.added, key: added}, _without(self.removed, key))

    def forgetting(self, key: str) -> Changes:
        """As if nothing had been done to a class."""
        return Changes(_without(self.added, key), _without(self.removed, key))

    def removing(self, key: str, base: Base) -> Changes:
        """Without a class."""
        removed = {**self.removed, key: base.bank.names[base.rows[key]]} if key in base.rows else self.removed
        return Changes(_without(self.added, key), removed)

    def own(self, base: Base) -> dict[str, Added]:
        """The added classes whose rows are not the bundle's."""
        return {key: added for key, added in self.added.items() if not (added.plain and key in base.rows)}

    def record(self, base: Base) -> dict[str, Any]:
        """What is saved with a bank."""
        return {
            "names": dict(base.bank.provenance),
            "bundle": base.bundle_digest,
            "bundle_bank": base.bank.content_digest,
            "added": {added.name: {"phrases": list(added.phrases), "at": added.at} for added in self.added.values()},
            "removed": list(self.removed.values()),
        }

    @classmethod
    def of(cls, bank: ClassBank) -> Changes:
        """Read the record of a saved bank.

        Raises:
            BankError: it has none, or a broken one.
        """
        found = bank.provenance
        try:
            added = [
                Added(_text(name), tuple(map(_text, item["phrases"])), _text(item["at"]))
                for name, item in sorted(found["added"].items(), key=lambda pair: _place(bank, pair[0]))
            ]
            removed = [_text(name) for name in found["removed"]]
        except (AttributeError, KeyError, TypeError) as error:
            raise BankError(
                f"no record of what was changed, as sar-serve keeps it ({error!r}); to serve a bank of sar-bank, "
                "make it a bundle (sar-bank freeze)"
            ) from None
        changes = cls({name_key(item.name): item for item in added}, {name_key(name): name for name in removed})
        if set(changes.added) & set(changes.removed):
            raise BankError("its record has a class both added and removed")
        return changes


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r:.40}")
    return value


def _place(bank: ClassBank, name: str) -> int:
    """JSON sorts the added classes; the bank's rows remember the order they came in."""
    return bank.index.get(name, len(bank.names))


def _without(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return {other: value for other, value in mapping.items() if other != key} if key in mapping else mapping
