"""Photos of classes: their digests and embeddings, and the encoder that embedded them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.errors import BankError
from sar_infer.storage.named_tensors import read_only

Doubles = npt.NDArray[np.float64]
UNIT_TOLERANCE = 1e-3
MOST_ROWS = 64
"""Photos of a class whose embeddings are stored; of older ones the digest and the sum."""


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Photos of one class, the oldest first.

    Attributes:
        digests: The SHA-256 of each photo's pixels; digests are unique.
        recent: The unit embeddings (D,) of the latest R photos, by digest.
        total: (D,) float64, the sum of the embeddings of all photos.
        photos_only: The name of the class carries no meaning.
    """

    digests: tuple[bytes, ...]
    recent: Mapping[bytes, Floats]
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
        recent = dict(zip([digests[number] for number in unique], rows, strict=True))
        return cls(tuple(recent), recent, rows.sum(axis=0, dtype=np.float64), photos_only)

    def __len__(self) -> int:
        return len(self.digests)

    def __bool__(self) -> bool:
        """Return False if this is what every class without photos has."""
        return bool(self.digests) or self.photos_only

    @functools.cached_property
    def digest_set(self) -> frozenset[bytes]:
        """Return all digests."""
        return frozenset(self.digests)

    @functools.cached_property
    def rows(self) -> Floats:
        """Return the embeddings (R, D) of the latest photos."""
        return np.array([*self.recent.values()], np.float32).reshape(-1, len(self.total))

    def same(self, other: PhotoSet) -> bool:
        """Return True if both are the same photos of a class, and its name means as much."""
        return self.digests == other.digests and self.photos_only == other.photos_only

    def joined(self, other: PhotoSet) -> PhotoSet:
        """Return these photos and after them those of ``other`` that are not among them."""
        fresh = other.without(self.digests)
        digests = (*self.digests, *fresh.digests)
        recent = latest(digests, {**other.recent, **self.recent})
        return PhotoSet(digests, recent, self.total + fresh.total, self.photos_only or other.photos_only)

    def without(self, digests: Iterable[bytes], rows: Mapping[bytes, Floats] = MappingProxyType({})) -> PhotoSet:
        """Return these photos without some.

        Of one whose embedding is only in the sum, nothing can be subtracted; then all such photos are left out, unless
        ``rows`` has its embedding (D,).
        """
        gone = self.digest_set.intersection(digests)
        if not gone:
            return self
        recent = {digest: row for digest, row in self.recent.items() if digest not in gone}
        rows = {**rows, **self.recent}
        if gone <= rows.keys() and len(gone) < len(self):
            left = tuple(digest for digest in self.digests if digest not in gone)
            total = self.total - np.array([rows[digest] for digest in gone]).sum(axis=0, dtype=np.float64)
        else:
            left = tuple(recent)
            total = np.zeros_like(self.total) + np.array([*recent.values()]).sum(axis=0, dtype=np.float64)
        return PhotoSet(left, recent, total, self.photos_only)


NO_PHOTOS = PhotoSet((), {}, np.zeros(1))
"""Of a class that has none; its sum is 0 for any number of dimensions."""


def latest(digests: Sequence[bytes], rows: Mapping[bytes, Floats]) -> dict[bytes, Floats]:
    """Return the embeddings of the latest photos, by digest: of ``MOST_ROWS`` at most, up to one that has none."""
    stored = itertools.takewhile(rows.__contains__, reversed(digests[-MOST_ROWS:]))
    return {digest: rows[digest] for digest in reversed([*stored])}


def check_unit(embeddings: Floats, names: Iterable[str] | None = None) -> None:
    """Raise BankError unless each of the embeddings (N, D) has length 1; the first other one is named."""
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))  # as norm, without a copy
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
    if wrong.size:
        of = "a photo" if names is None else repr([*names][wrong[0]])
        raise BankError(f"embedding of {of} has length {lengths[wrong[0]]:.4g}, expected 1")


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
