"""Comparing banks: the changes from one to another."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.photos import PhotoSet
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
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: Mapping[str, str]
    reembedded: Mapping[str, float]
    changed: Mapping[str, tuple[ClassInfo, ClassInfo]]
    photos: Mapping[str, PhotoChange] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.renamed, self.reembedded, self.changed, self.photos))


def diff(a: ClassBank, b: ClassBank) -> Difference:
    """Return the changes from a to b, two banks of one encoder.

    Raises:
        BankError: they belong to different encoders, so that their rows cannot be compared.
    """
    if a.encoder_digest != b.encoder_digest:
        raise BankError(f"banks of different encoders: {a.encoder_digest} and {b.encoder_digest}")
    ours, theirs = a.index.for_many(len(b.names)), b.index.for_many(len(a.names))
    shared = [(name, row, theirs[name]) for row, name in enumerate(a.names) if name in theirs]
    reembedded = {}
    for name, first, second in shared:
        one, two = a.embeddings[first], b.embeddings[second]
        if not np.array_equal(one, two):
            reembedded[name] = float(one @ two)
    known = [(name, *_same_day(a.info.get(name, PLAIN), b.info.get(name, PLAIN))) for name, _, _ in shared]
    added = [name for name in b.names if name not in ours]
    removed = [name for name in a.names if name not in theirs]
    renamed = _renamed(a, b, removed, added) if removed and added else {}
    came = set(renamed.values())
    return Difference(
        tuple(name for name in added if name not in came),
        tuple(name for name in removed if name not in renamed),
        renamed,
        reembedded,
        {name: (one, two) for name, one, two in known if one != two},
        _photo_changes(a, b),
    )


def _photo_changes(a: ClassBank, b: ClassBank) -> dict[str, PhotoChange]:
    """Return what changed in the photos of classes that both have; the order of photos does not count."""
    none = PhotoSet.none(a.embeddings.shape[1])
    found = {}
    for name in dict.fromkeys([*a.photos, *b.photos]):
        one, two = a.photos.get(name, none), b.photos.get(name, none)
        if one.seal == two.seal or name not in a.index or name not in b.index:
            continue
        turned = None if one.photos_only == two.photos_only else two.photos_only
        change = PhotoChange(len(two.known - one.known), len(one.known - two.known), turned)
        if change != PhotoChange(0, 0):
            found[name] = change
    return found


def _same_day(one: ClassInfo, two: ClassInfo) -> tuple[ClassInfo, ClassInfo]:
    """Return the info of a class in both banks; if both have the time when it was added, it does not count."""
    return (one, dataclasses.replace(two, added=one.added)) if one.added and two.added else (one, two)


def _renamed(a: ClassBank, b: ClassBank, removed: list[str], added: list[str]) -> dict[str, str]:
    """Return pairs with the same row, by its 16-byte digest; rows that several classes have are left out."""
    left: dict[bytes, list[str]] = {}
    came: dict[bytes, list[str]] = {}
    for bank, names, rows in ((a, removed, left), (b, added, came)):
        for name in names:
            row = np.ascontiguousarray(bank.embeddings[bank.index[name]])
            rows.setdefault(hashlib.blake2b(row.data, digest_size=16).digest(), []).append(name)
    return {old[0]: new[0] for row, old in left.items() if len(old) == 1 and len(new := came.get(row, [])) == 1}
