"""The photos of a class: the unit row of each, and the digest of its pixels.

A class keeps the rows of its latest ``MOST_ROWS`` photos. Of older ones only the sum of their rows is kept: they still
count, and are still recognised, but can no longer be removed one by one. Sums are float64, added in the photos' order.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.errors import BankError, InputError
from sar_infer.storage.named_tensors import read_only

MOST_ROWS = 64
"""Photos of a class whose rows are kept."""
DIGEST_BYTES = 32
_UNIT_TOLERANCE = 1e-3
Digests = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """The photos of one class, the oldest first.

    Attributes:
        digests: (P, 32) uint8, the SHA-256 of each photo's pixels; none stands twice.
        rows: (R, D) float32, the unit rows of the last R photos.
        older: (D,) float64, the sum of the rows of the P - R photos before them.
        photos_only: The class's name means nothing, and its photos alone say what it is.
    """

    digests: Digests
    rows: Floats
    older: Doubles
    photos_only: bool = False

    @classmethod
    def of(cls, digests: Digests, rows: Floats, *, photos_only: bool = False) -> PhotoSet:
        """Return the photos with these digests (N, 32) and unit rows (N, D); one that comes twice counts once."""
        start = cls.none(rows.shape[1])
        return dataclasses.replace(start, photos_only=photos_only).with_added(digests, rows)

    @classmethod
    def none(cls, dim: int) -> PhotoSet:
        """Return no photos, for rows of ``dim`` numbers."""
        return cls(np.empty((0, DIGEST_BYTES), np.uint8), np.empty((0, dim), np.float32), np.zeros(dim))

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", read_only(self.rows))

    def __len__(self) -> int:
        return len(self.digests)

    def __bool__(self) -> bool:
        """Return False if this is what every class without photos has."""
        return len(self.digests) > 0 or self.photos_only

    @property
    def folded(self) -> int:
        """Return the number of photos whose rows are not kept."""
        return len(self.digests) - len(self.rows)

    @functools.cached_property
    def total(self) -> Doubles:
        """Return the sum (D,) of the rows of all photos."""
        result: Doubles = self.older + self.rows.sum(axis=0, dtype=np.float64)
        return result

    @property
    def mean(self) -> Doubles:
        """Return the mean row (D,) of all photos; zeros if there are none."""
        result: Doubles = self.total / max(1, len(self))
        return result

    @functools.cached_property
    def digest_set(self) -> frozenset[bytes]:
        """Return all digests."""
        return frozenset(digest.tobytes() for digest in self.digests)

    @functools.cached_property
    def identity(self) -> bytes:
        """Return a SHA-256 that is the same for the same photos, in whatever order they came."""
        return hashlib.sha256(b"".join([bytes([self.photos_only]), *sorted(self.digest_set)])).digest()

    def check(self, dim: int) -> None:
        """Check shapes and numbers.

        Args:
            dim: D of the encoder.

        Raises:
            BankError: A row has another length, a photo stands twice, or the sum is too large for its photos.
        """
        if self.rows.shape[1:] != (dim,) or self.older.shape != (dim,) or not 0 <= self.folded <= len(self):
            raise BankError(f"rows of photos have {self.rows.shape[-1]} numbers, expected {dim}")
        if len(self.rows) > MOST_ROWS:
            raise BankError(f"{len(self.rows)} rows of photos, at most {MOST_ROWS} are kept")
        _check_rows(self.rows)
        if len(self.digest_set) != len(self.digests):
            raise BankError("a photo is counted twice")
        with np.errstate(over="ignore"):
            length = float(np.linalg.norm(self.older))
        if not length <= self.folded * (1 + _UNIT_TOLERANCE):
            raise BankError(f"the sum of {self.folded} photos is larger than that of as many rows of length 1")

    def with_added(self, digests: Digests, rows: Floats) -> PhotoSet:
        """Return these and further photos (N, 32) and (N, D), without those that are there; no row is dropped.

        Raises:
            BankError: The rows are no unit rows, or of another encoder's size.
        """
        if rows.dtype != np.float32 or rows.shape != (len(digests), self.rows.shape[1]):
            raise BankError(f"expected float32 ({len(digests)}, {self.rows.shape[1]}) rows of photos, got {rows.shape}")
        counted, fresh = set(self.digest_set), []
        for number, digest in enumerate(digests):
            if (key := digest.tobytes()) not in counted:
                counted.add(key)
                fresh.append(number)
        if not fresh:
            return self
        _check_rows(rows[fresh])
        digests, rows = np.concatenate([self.digests, digests[fresh]]), np.concatenate([self.rows, rows[fresh]])
        return dataclasses.replace(self, digests=digests, rows=rows)

    def with_photos_only(self, photos_only: bool) -> PhotoSet:
        """Return the same photos of a class whose name means nothing, or does."""
        return self if photos_only == self.photos_only else dataclasses.replace(self, photos_only=photos_only)

    def limited(self, most: int = MOST_ROWS) -> PhotoSet:
        """Return these photos with the rows of the latest ``most`` alone."""
        if len(self.rows) <= most:
            return self
        gone = len(self.rows) - most
        older = self.older + self.rows[:gone].sum(axis=0, dtype=np.float64)
        return dataclasses.replace(self, rows=self.rows[gone:], older=older)

    def without(self, digests: Iterable[bytes]) -> PhotoSet:
        """Return these photos without some.

        Raises:
            InputError: One is not among them, or its row is not kept.
        """
        gone = set(digests)
        positions = [number for number, digest in enumerate(self.digests) if digest.tobytes() in gone]
        if len(positions) != len(gone):
            raise InputError("a photo to remove is not counted for the class")
        if positions and positions[0] < self.folded:
            raise InputError(
                f"a photo to remove is among the oldest {self.folded:,} of the class, which are kept as a sum alone "
                f"(rows are kept of the latest {MOST_ROWS}); remove the class and add the photos that are to stay"
            )
        if not positions:
            return self
        rows = np.delete(self.rows, [position - self.folded for position in positions], axis=0)
        return dataclasses.replace(self, digests=np.delete(self.digests, positions, axis=0), rows=rows)


PhotosByName = Mapping[str, PhotoSet]
"""The photos of classes by name; a class without any is not there."""


def united(ours: PhotoSet, theirs: PhotoSet) -> PhotoSet | None:
    """Return the photos of both, ours first; None if photos of which only a sum remains are in part in both.

    Raises:
        BankError: They are of different encoders.
    """
    if theirs.rows.shape[1] != ours.rows.shape[1]:
        raise BankError(f"rows of photos have {theirs.rows.shape[1]} numbers, expected {ours.rows.shape[1]}")
    if theirs.digest_set <= ours.digest_set:
        return ours
    first, second = ({digest.tobytes() for digest in one.digests[: one.folded]} for one in (ours, theirs))
    if first & second:
        return theirs.with_photos_only(ours.photos_only) if ours.digest_set <= theirs.digest_set else None
    ours = ours.without(ours.digest_set & second)
    older = np.concatenate([ours.digests[: ours.folded], theirs.digests[: theirs.folded]])
    digests = np.concatenate([older, ours.digests[ours.folded :]])
    both = dataclasses.replace(ours, digests=digests, older=ours.older + theirs.older)
    return both.with_added(theirs.digests[theirs.folded :], theirs.rows)


def _check_rows(rows: Floats) -> None:
    """Raise BankError unless every row (N, D) has length 1."""
    if not (np.abs(np.sqrt(np.einsum("ij,ij->i", rows, rows)) - 1) <= _UNIT_TOLERANCE).all():
        raise BankError("the row of a photo has not length 1")
