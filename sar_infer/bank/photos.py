"""Photos of classes: their digests and embeddings, and the encoder that embedded them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.entry import Doubles, check_unit
from sar_infer.errors import BankError
from sar_infer.storage.named_tensors import read_only

MOST_ROWS = 64
"""Photos of a class whose embeddings are stored; of older ones the digest and the sum."""


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Photos of one class, the oldest first.

    Attributes:
        digests: The SHA-256 of each photo's pixels; digests are unique.
        rows: (R, D) float32, the unit embeddings of the latest R photos.
        total: (D,) float64, the sum of the embeddings of all photos.
        photos_only: The name of the class carries no meaning.
    """

    digests: tuple[bytes, ...]
    rows: Floats
    total: Doubles
    photos_only: bool = False

    @classmethod
    def of(cls, digests: Iterable[bytes], rows: Floats, *, photos_only: bool = False) -> PhotoSet:
        """Return the photos with these digests and unit embeddings (N, D); a repeated photo counts once.

        Raises:
            BankError: An embedding does not have length 1.
        """
        digests = [bytes(digest) for digest in digests]
        if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(digests):
            raise BankError(f"expected float32 ({len(digests)}, D) embeddings of photos, got {rows.dtype} {rows.shape}")
        first = dict(zip(reversed(digests), reversed(range(len(digests))), strict=True))
        unique = sorted(first.values())
        rows = read_only(rows[unique])
        check_unit(rows)
        return cls(tuple(digests[number] for number in unique), rows, rows.sum(axis=0, dtype=np.float64), photos_only)

    def __len__(self) -> int:
        return len(self.digests)

    def __bool__(self) -> bool:
        """Return False if this is what every class without photos has."""
        return bool(self.digests) or self.photos_only

    @property
    def digest_set(self) -> frozenset[bytes]:
        """Return all digests."""
        return frozenset(self.digests)

    @property
    def recent(self) -> Mapping[bytes, Floats]:
        """Return the embeddings that are stored, by digest."""
        return dict(zip(self.digests[len(self.digests) - len(self.rows) :], self.rows, strict=True))

    @property
    def mean(self) -> Doubles:
        """Return the mean embedding (D,); zeros without photos."""
        return np.asarray(self.total / max(1, len(self)))

    def without(self, digests: Iterable[bytes]) -> PhotoSet:
        """Return these photos without some.

        Of one whose embedding is only in the sum, nothing can be subtracted; then all such photos are left out.
        """
        gone, recent = self.digest_set.intersection(digests), self.recent
        left, total = without(gone, self.digests, recent, self.total)
        rows = [row for digest, row in recent.items() if digest not in gone]
        return PhotoSet(left, np.array(rows, np.float32).reshape(-1, len(self.total)), total, self.photos_only)


def without(
    gone: Iterable[bytes], digests: tuple[bytes, ...], rows: Mapping[bytes, Floats], total: Doubles
) -> tuple[tuple[bytes, ...], Doubles]:
    """Return the digests and the sum of photos without some of them; see ``PhotoSet.without``."""
    gone = {*gone}
    if gone <= rows.keys():
        left = tuple(digest for digest in digests if digest not in gone)
        return left, total - np.array([rows[digest] for digest in gone]).sum(axis=0, dtype=np.float64)
    left = tuple(digest for digest in digests if digest in rows and digest not in gone)
    return left, np.array([rows[digest] for digest in left]).sum(axis=0, dtype=np.float64) + np.zeros_like(total)


class Images(NamedTuple):
    """How the encoder embeds images.

    Attributes:
        digest: Over weights, visual prompts and preprocessing.
        self_test: The unit embedding of the bundle's self-test image; empty if the bundle has none.
    """

    digest: str = ""
    self_test: tuple[float, ...] = ()

    def same(self, other: Images) -> bool:
        """Return True if photos of both can be compared: equal digests, or equal embeddings of the self-test image."""
        if self.digest == other.digest and self.digest:
            return True
        return (
            len(self.self_test) == len(other.self_test) > 0 and float(np.dot(self.self_test, other.self_test)) > 0.9999
        )


NO_IMAGES = Images()


class Parked(NamedTuple):
    """Photos that another image encoder embedded, by the bank's keys; they wait for that encoder."""

    images: Images
    photos: Mapping[str, PhotoSet]
