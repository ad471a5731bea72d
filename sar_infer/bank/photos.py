"""The photos of classes: for each its unit row and the digest of its pixels, and their exact sum for each class.

A class keeps the rows of its latest ``MOST_ROWS`` photos. Older ones are folded: they still count in the sum, and are
still recognised, but can no longer be removed one by one. Sums are whole numbers of ``UNIT``, so that neither the order
in which photos come nor how they are split into steps changes a bit of a mean, and taking photos away undoes exactly.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.errors import BankError, InputError
from sar_infer.storage.named_tensors import read_only
from sar_infer.storage.tensor_file import Joined, Storable, Tensors, tensor_bytes

MOST_ROWS = 64
"""Photos of a class whose rows are kept."""
UNIT = 2.0**-44
"""Unit of the integer sums; half of it, 3e-14, is the largest rounding of one number of a row."""
DIGEST_BYTES = 32
CLASSES, SEALS, ROWS, DIGESTS, SUMS = "photo_classes", "photo_seals", "photo_rows", "photo_digests", "photo_sums"
RETIRED, RETIRED_SEALS = "retired_photos", "retired_photo_seals"
TENSORS = {CLASSES: "I64", SEALS: "U8", ROWS: "F32", DIGESTS: "U8", SUMS: "I64", RETIRED: "I64", RETIRED_SEALS: "U8"}
"""Type of each tensor; a bank file without photos has none of them."""
SEALED = (CLASSES, SEALS)
"""Tensors that the bank's content digest covers; the seals cover the photos themselves."""
_UNIT_TOLERANCE = 1e-3
Digests = npt.NDArray[np.uint8]
Sums = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """The photos of one class, the oldest first.

    Attributes:
        digests: (P, 32) uint8, the SHA-256 of each photo's pixels; none stands twice.
        rows: (R, D) float32, the unit rows of the last R photos; the P - R before them are folded.
        total: (D,) int64, the sum of all P rows in units of ``UNIT``.
        photos_only: The class's name means nothing, and its photos alone say what it is.
        stated: The seal that a file states for them; their bytes have not been compared with it.
    """

    digests: Digests
    rows: Floats
    total: Sums
    photos_only: bool = False
    stated: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, digests: Digests, rows: Floats, *, photos_only: bool = False) -> PhotoSet:
        """Return the photos with these digests (N, 32) and unit rows (N, D); one that comes twice counts once."""
        start = cls.none(rows.shape[1])
        return dataclasses.replace(start, photos_only=photos_only).with_added(digests, rows)

    @classmethod
    def none(cls, dim: int) -> PhotoSet:
        """Return no photos, for rows of ``dim`` numbers."""
        empty = np.empty((0, dim), np.float32)
        return cls(np.empty((0, DIGEST_BYTES), np.uint8), empty, np.zeros(dim, np.int64))

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
    def mean(self) -> npt.NDArray[np.float64]:
        """Return the mean row (D,) of all photos; zeros if there are none."""
        result: npt.NDArray[np.float64] = self.total.astype(np.float64) * UNIT / max(1, len(self))
        return result

    @functools.cached_property
    def known(self) -> frozenset[bytes]:
        """Return all digests."""
        return frozenset(digest.tobytes() for digest in self.digests)

    @functools.cached_property
    def seal(self) -> bytes:
        """Return the SHA-256 over all of it: two that have the same seal are equal to the bit."""
        return self.stated if self.stated is not None else self.computed_seal()

    def computed_seal(self) -> bytes:
        """Return the seal of the bytes that are there, whatever a file states."""
        numbers = np.array([len(self.digests), len(self.rows), self.photos_only], np.int64)
        result = hashlib.sha256()
        for array in (numbers, self.total, self.digests, self.rows):
            for piece in tensor_bytes(array):
                result.update(piece)
        return result.digest()

    def check(self) -> None:
        """Check the bytes that are there, once.

        Raises:
            BankError: they do not match the stated seal, a row is no unit row, a photo stands twice, or the sum is not
                that of the rows.
        """
        _ = self._sound

    @functools.cached_property
    def _sound(self) -> None:
        """Check, once; errors are not cached, so that each call raises them."""
        if self.stated is not None and self.computed_seal() != self.stated:
            raise BankError("photos do not match their seal; the file was damaged or changed")
        lengths = np.sqrt(np.einsum("ij,ij->i", self.rows, self.rows))
        if not (np.abs(lengths - 1) <= _UNIT_TOLERANCE).all():
            raise BankError("the row of a photo has not length 1")
        if len(self.known) != len(self.digests):
            raise BankError("a photo is counted twice")
        if not self.folded and not np.array_equal(self.total, _summed(self.rows)):
            raise BankError("the sum of photos is not that of their rows")

    def with_added(self, digests: Digests, rows: Floats) -> PhotoSet:
        """Return these and further photos (N, 32) and (N, D), without those that are there.

        Raises:
            BankError: the rows are no unit rows, or of another encoder's size; or photos that are there are damaged.
        """
        self.check()
        if rows.dtype != np.float32 or rows.shape != (len(digests), self.rows.shape[1]):
            raise BankError(f"expected float32 ({len(digests)}, {self.rows.shape[1]}) rows of photos, got {rows.shape}")
        seen, fresh = set(self.known), []
        for number, digest in enumerate(digests):
            if (key := digest.tobytes()) not in seen:
                seen.add(key)
                fresh.append(number)
        if not fresh:
            return self
        return dataclasses.replace(
            self,
            digests=np.concatenate([self.digests, digests[fresh]]),
            rows=np.concatenate([self.rows, rows[fresh]]),
            total=self.total + _summed(rows[fresh]),
            stated=None,
        )

    def with_photos_only(self, photos_only: bool) -> PhotoSet:
        """Return the same photos of a class whose name means nothing, or does.

        Raises:
            BankError: the photos are damaged.
        """
        if photos_only == self.photos_only:
            return self
        self.check()
        return dataclasses.replace(self, photos_only=photos_only, stated=None)

    def limited(self, most: int = MOST_ROWS) -> PhotoSet:
        """Return these photos with the rows of the latest ``most`` alone; the others are folded.

        Raises:
            BankError: the photos are damaged.
        """
        if len(self.rows) <= most:
            return self
        self.check()
        kept = len(self) - most
        old = sorted(digest.tobytes() for digest in self.digests[:kept])  # their order means nothing any more
        digests = np.concatenate([_unpacked(old), self.digests[kept:]])
        return dataclasses.replace(self, digests=digests, rows=self.rows[len(self.rows) - most :], stated=None)

    def without(self, digests: Iterable[bytes]) -> PhotoSet:
        """Return these photos without some.

        Raises:
            InputError: one is not among them, or is folded.
            BankError: the photos that are there are damaged.
        """
        self.check()
        gone = set(digests)
        places = [number for number, digest in enumerate(self.digests) if digest.tobytes() in gone]
        if len(places) != len(gone):
            raise InputError("a photo to remove is not counted for the class")
        if places and places[0] < self.folded:
            raise InputError(
                f"a photo to remove is among the oldest {self.folded:,} of the class, which are kept as a sum alone "
                f"(rows are kept of the latest {MOST_ROWS}); remove the class and add the photos that are to stay"
            )
        if not places:
            return self
        rows = [place - self.folded for place in places]
        return dataclasses.replace(
            self,
            digests=np.delete(self.digests, places, axis=0),
            rows=np.delete(self.rows, rows, axis=0),
            total=self.total - _summed(self.rows[rows]),
            stated=None,
        )

    def appended_to(self, old: PhotoSet) -> int | None:
        """Return how many photos these have after those of ``old``, if that is the only difference; else None."""
        count = len(old)
        same = (self.folded, self.photos_only) == (old.folded, old.photos_only) and len(self) >= count
        return len(self) - count if same and np.array_equal(self.digests[:count], old.digests) else None

    def shortened(self, count: int) -> PhotoSet:
        """Return these photos without the last ``count``, whose rows must be there."""
        gone = [digest.tobytes() for digest in self.digests[len(self) - count :]]
        return self.without(gone)


Photos = Mapping[str, PhotoSet]
"""The photos of classes by name; a class without any is not there."""


@dataclass(frozen=True)
class PhotosBefore:
    """How the photos of a class are put back, by its row at that time.

    Attributes:
        row: The class's row before the step.
        appended: Number of its latest photos, which go; None puts back the next set of photos on the stack of photos.
    """

    row: int
    appended: int | None = None


def united(ours: PhotoSet, theirs: PhotoSet) -> PhotoSet | None:
    """Return the photos of both, ours first; None if folded ones of one are in part those of the other.

    Photos that only a sum remains of cannot be told apart any more.

    Raises:
        BankError: they are of different encoders, or damaged.
    """
    if theirs.rows.shape[1] != ours.rows.shape[1]:
        raise BankError(f"rows of photos have {theirs.rows.shape[1]} numbers, expected {ours.rows.shape[1]}")
    if theirs.known <= ours.known:
        return ours
    first, second = ({digest.tobytes() for digest in one.digests[: one.folded]} for one in (ours, theirs))
    if first & second:
        return theirs.with_photos_only(ours.photos_only) if ours.known <= theirs.known else None
    ours = ours.without(ours.known & second)
    theirs.check()
    start = dataclasses.replace(
        ours,
        digests=np.concatenate([_unpacked(sorted(first | second)), ours.digests[ours.folded :]]),
        total=ours.total + theirs.total - _summed(theirs.rows),
        stated=None,
    )
    return start.with_added(theirs.digests[theirs.folded :], theirs.rows)


def put_back(
    photos: Photos, had: Sequence[PhotosBefore], stack: Sequence[PhotoSet], names: Sequence[str]
) -> dict[str, PhotoSet]:
    """Return the photos that classes had before a step.

    Args:
        photos: Those after it, by the names before it.
        had: How they are put back.
        stack: The sets of photos that the step removed or replaced.
        names: The classes before the step.

    Raises:
        BankError: the step does not fit.
    """
    result, sets = dict(photos), iter(stack)
    for one in had:
        name = names[one.row] if 0 <= one.row < len(names) else ""
        now = result.pop(name, None)
        if one.appended is None:
            now = next(sets, None)
        elif now is not None:
            now = now.shortened(one.appended) if 0 < one.appended <= len(now.rows) else None
        if not name or now is None:
            raise BankError("its history does not fit the photos of its classes; the file was damaged or changed")
        if now:
            result[name] = now
    return result


def index_tensors(photos: Photos, places: Mapping[str, int]) -> Tensors:
    """Return the tensors that the content digest covers, from the row of each class that has photos."""
    if not photos:
        return {}
    ordered = sorted(photos, key=places.__getitem__)
    rows = np.array([places[name] for name in ordered], np.int64)
    sets = [photos[name] for name in ordered]
    return {CLASSES: np.column_stack([rows, _counts(sets)]), SEALS: _seals(sets)}


def to_tensors(photos: Photos, stack: Sequence[PhotoSet], places: Mapping[str, int], dim: int) -> Storable:
    """Return all tensors of a bank's photos; none if there are no photos.

    Args:
        photos: The photos of classes.
        stack: Photos that the history needs to undo steps.
        places: The row of each class that has photos.
        dim: D.
    """
    sets = [*(photos[name] for name in sorted(photos, key=places.__getitem__)), *stack]
    if not sets:
        return {}
    none: Tensors = {CLASSES: np.empty((0, 4), np.int64), SEALS: _seals([])}
    return {
        **none,
        **index_tensors(photos, places),
        **retired_tensors(stack),
        ROWS: Joined((np.empty((0, dim), np.float32), *(one.rows for one in sets))),
        DIGESTS: Joined(tuple(one.digests for one in sets)),
        SUMS: np.stack([one.total for one in sets]),
    }


def retired_tensors(stack: Sequence[PhotoSet]) -> Tensors:
    """Return the tensors of the stack that a bank's record digest covers."""
    return {RETIRED: _counts(stack), RETIRED_SEALS: _seals(stack)}


def from_tensors(tensors: Tensors, names: Sequence[str], dim: int) -> tuple[dict[str, PhotoSet], list[PhotoSet]]:
    """Return photos by class, and the stack; the photos' own bytes are not looked at.

    Raises:
        BankError: the tensors do not fit each other or the bank.
    """
    found = {name: tensors[name] for name in TENSORS if name in tensors}
    if not found:
        return {}, []
    if found.keys() != TENSORS.keys():
        raise BankError(f"expected the tensors {', '.join(TENSORS)} together, found {', '.join(found)}")
    live, retired = found[CLASSES], found[RETIRED]
    if live.ndim != 2 or live.shape[1] != 4 or retired.ndim != 2 or retired.shape[1] != 3:
        raise BankError(f"photos of classes: expected (K, 4) and (S, 3) numbers, got {live.shape} and {retired.shape}")
    places, counts = live[:, 0], np.concatenate([live[:, 1:], retired])
    count = len(counts)
    if len(places) and not (places[0] >= 0 and places[-1] < len(names) and (np.diff(places) > 0).all()):
        raise BankError(f"photos of classes that are not in the bank of {len(names)}, or stand twice")
    if (counts < 0).any() or (counts > [len(found[DIGESTS]), MOST_ROWS, 1]).any():
        raise BankError(f"photos of classes: expected 0 to {MOST_ROWS} rows a class")
    rows, digests = int(counts[:, 1].sum()), int(counts[:, :2].sum())
    seals = np.concatenate([found[SEALS].reshape(-1, DIGEST_BYTES), found[RETIRED_SEALS].reshape(-1, DIGEST_BYTES)])
    shapes = [(found[ROWS], (rows, dim)), (found[DIGESTS], (digests, DIGEST_BYTES)), (found[SUMS], (count, dim))]
    if len(seals) != count or any(array.shape != shape for array, shape in shapes):
        raise BankError("photos of classes: the tensors do not fit each other")
    if (np.linalg.norm(found[SUMS] * UNIT, axis=1) > counts[:, :2].sum(axis=1) * (1 + _UNIT_TOLERANCE)).any():
        raise BankError("photos of classes: a sum is larger than that of as many rows of length 1")
    row_ends = np.cumsum(counts[:, 1]).tolist()
    digest_ends = np.cumsum(counts[:, 0] + counts[:, 1]).tolist()
    sets = []
    for number, (folded, kept, photos_only) in enumerate(counts.tolist()):
        row, digest = row_ends[number], digest_ends[number]
        sets.append(
            PhotoSet(
                found[DIGESTS][digest - folded - kept : digest],
                found[ROWS][row - kept : row],
                found[SUMS][number],
                bool(photos_only),
                seals[number].tobytes(),
            )
        )
    return {names[place]: one for place, one in zip(places.tolist(), sets, strict=False)}, sets[len(places) :]


def _unpacked(digests: Sequence[bytes]) -> Digests:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), DIGEST_BYTES)


def _counts(sets: Sequence[PhotoSet]) -> npt.NDArray[np.int64]:
    return np.array([[one.folded, len(one.rows), one.photos_only] for one in sets], np.int64).reshape(len(sets), 3)


def _seals(sets: Sequence[PhotoSet]) -> Digests:
    return _unpacked([one.seal for one in sets])


def _summed(rows: Floats) -> Sums:
    """Return the sum (D,) of rows in units of ``UNIT``: whole numbers, which add up without rounding in any order."""
    result: Sums = np.rint(rows.astype(np.float64) / UNIT).astype(np.int64).sum(axis=0)
    return result
