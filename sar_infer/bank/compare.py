"""Comparing banks: the changes from one state to another."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sar_infer.bank.info import ClassInfo
from sar_infer.bank.learned import NOTHING, fitted_identity
from sar_infer.bank.state import State
from sar_infer.errors import BankError


@dataclass(frozen=True)
class PhotoChange:
    """The changes of a class's photos: how many came and went, and if its name means nothing now, or nothing before."""

    came: int
    went: int
    photos_only: bool | None = None


@dataclass(frozen=True)
class Difference:
    """The changes from bank a to bank b; the order of classes does not count.

    Attributes:
        added: Names that only b has.
        removed: Names that only a has.
        renamed: New name by old name, for a row that a has under one name and b under another.
        reembedded: Cosine between the old and the new row, by name, of classes whose row has changed.
        changed: Info of a class in a and in b, by name, if it differs; renamed classes are left out.
        photos: What changed in the photos of a class that both have.
        training: ``added``, ``removed`` or ``changed``, of ``statistics`` that were fitted on the bank's rows and of
            ``learning`` from photos without labels.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: Mapping[str, str]
    reembedded: Mapping[str, float]
    changed: Mapping[str, tuple[ClassInfo, ClassInfo]]
    photos: Mapping[str, PhotoChange] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        fields = (self.added, self.removed, self.renamed, self.reembedded, self.changed, self.photos, self.training)
        return any(fields)


def diff(a: State, b: State) -> Difference:
    """Return the changes from a to b, two banks of one encoder.

    Raises:
        BankError: They belong to different encoders, so that their rows cannot be compared.
    """
    if a.encoder_digest != b.encoder_digest:
        raise BankError(f"banks of different encoders: {a.encoder_digest} and {b.encoder_digest}")
    ours, theirs = _compared(a, b), _compared(b, a)
    added = [name for name in theirs if name not in a.index]
    removed = [name for name in ours if name not in b.index]
    shared = [name for name in dict.fromkeys([*ours, *theirs]) if name in a.index and name in b.index]
    reembedded: dict[str, float] = {}
    changed: dict[str, tuple[ClassInfo, ClassInfo]] = {}
    photos: dict[str, PhotoChange] = {}
    for name in shared:
        one, two = a.rows_at([a.index[name]])[0], b.rows_at([b.index[name]])[0]
        if not np.array_equal(one, two):
            reembedded[name] = float(one @ two)
        before, after = _same_day(a.info_of(name), b.info_of(name))
        if before != after:
            changed[name] = before, after
        was, now = a.photos_of(name), b.photos_of(name)
        turned = None if was.photos_only == now.photos_only else now.photos_only
        change = PhotoChange(len(now.known - was.known), len(was.known - now.known), turned)
        if change != PhotoChange(0, 0):
            photos[name] = change
    renamed = _renamed(a, b, removed, added) if removed and added else {}
    came = set(renamed.values())
    return Difference(
        tuple(name for name in added if name not in came),
        tuple(name for name in removed if name not in renamed),
        renamed,
        reembedded,
        changed,
        photos,
        difference_in_training(a, b),
    )


def difference_in_training(a: State, b: State) -> dict[str, str]:
    """Return ``Difference.training`` from a to b."""
    identities = {
        "statistics": (fitted_identity(a.fitted), fitted_identity(b.fitted)),
        "learning": (_sums(a), _sums(b)),
    }
    words = {(True, False): "added", (False, True): "removed"}
    return {
        noun: words.get((one == NOTHING, two == NOTHING), "changed")
        for noun, (one, two) in identities.items()
        if one != two
    }


def _sums(state: State) -> bytes:
    """Return the identity of what a state has learned, by the names of classes."""
    learned = state.learned
    if learned is None:
        return NOTHING
    ranks = {state.table.name(slot): slot for slot in learned.by_slot}
    named = learned.moved({ranks[name]: number for number, name in enumerate(sorted(ranks))})
    return hashlib.sha256(repr(sorted(ranks)).encode() + named.identity()).digest()


def _compared(state: State, other: State) -> list[str]:
    """Return a state's names, in order, that may differ in the other: on one base, those that changed in either."""
    if not state.base.same(other.base):
        return list(state.names)
    table, count = state.table, len(state.base.block)
    theirs = {slot for slot in {*other.touched, *other.table.removed.tolist()} if slot < count and table.has(slot)}
    return [table.name(slot) for slot in sorted({*state.touched, *theirs})]


def _same_day(one: ClassInfo, two: ClassInfo) -> tuple[ClassInfo, ClassInfo]:
    """Return the info of a class in both banks; if both have the time when it was added, it does not count."""
    return (one, dataclasses.replace(two, added=one.added)) if one.added and two.added else (one, two)


def _renamed(a: State, b: State, removed: list[str], added: list[str]) -> dict[str, str]:
    """Return pairs with the same row, by its 16-byte digest; rows that several classes have are left out."""
    left: dict[bytes, list[str]] = {}
    came: dict[bytes, list[str]] = {}
    for bank, names, rows in ((a, removed, left), (b, added, came)):
        for name in names:
            row = np.ascontiguousarray(bank.rows_at([bank.index[name]])[0])
            rows.setdefault(hashlib.blake2b(row.data, digest_size=16).digest(), []).append(name)
    return {old[0]: new[0] for row, old in left.items() if len(old) == 1 and len(new := came.get(row, [])) == 1}
