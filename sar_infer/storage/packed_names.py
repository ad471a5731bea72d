"""Class names as two arrays, which are decoded one at a time, so that a million of them load at once."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

_CONTINUES = 0x80
"""The upper two bits of a UTF-8 byte that does not begin a character."""
_PIECE = 1 << 20


class PackedNames(Sequence[str]):
    """A sequence of names that equals the tuple of the same names.

    Args:
        data: (B,) uint8, all names in UTF-8 end to end.
        offsets: (C+1,) int64, where each name begins and the last one ends.

    Raises:
        ValueError: The offsets do not fit, or a name is not UTF-8.
    """

    __slots__ = ("data", "offsets")

    def __init__(self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        _check(data, offsets)
        self.data = data
        self.offsets = offsets

    @classmethod
    def of(cls, names: Iterable[str]) -> PackedNames:
        """Pack names; packed ones are returned unchanged.

        Raises:
            UnicodeEncodeError: A name holds half a surrogate pair; it is a ValueError.
        """
        if isinstance(names, PackedNames):
            return names
        encoded = [name.encode("utf-8") for name in names]
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), _offsets(np.array([*map(len, encoded)], np.int64)))

    @classmethod
    def chain(cls, parts: Iterable[Iterable[str]]) -> PackedNames:
        """Return the names of several sequences, one after the other."""
        packed = [cls.of(part) for part in parts]
        lengths = [np.diff(part.offsets) for part in packed]
        data = np.concatenate(
            [np.empty(0, np.uint8), *(part.data[part.offsets[0] : part.offsets[-1]] for part in packed)]
        )
        return cls(data, _offsets(np.concatenate([np.empty(0, np.int64), *lengths])))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                return PackedNames.of([self[number] for number in range(start, stop, step)])
            bounds = self.offsets[start : max(start, stop) + 1]
            return PackedNames(self.data[bounds[0] : bounds[-1]], bounds - bounds[0])
        if not -len(self) <= place < len(self):
            raise IndexError(f"no name {place} among {len(self)}")
        place %= len(self)
        return self.data[self.offsets[place] : self.offsets[place + 1]].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        data = self.data.tobytes()
        for start, end in itertools.pairwise(self.offsets.tolist()):
            yield data[start:end].decode("utf-8")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedNames):
            return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.data, other.data)
        return isinstance(other, tuple) and len(other) == len(self) and all(map(str.__eq__, self, map(str, other)))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3])) + (", …" if len(self) > 3 else "")
        return f"<{len(self)} names: {shown}>"


def _offsets(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _check(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
    """Raise ValueError unless every slice between offsets is UTF-8: the whole is, and no slice splits a character."""
    fits = (
        (data.ndim, offsets.ndim) == (1, 1)
        and offsets.size > 0
        and offsets[0] == 0
        and offsets[-1] == data.size
        and not (offsets[1:] < offsets[:-1]).any()
    )
    if not fits:
        raise ValueError(f"name offsets do not fit the {data.size} bytes of names")
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, data.size, _PIECE):
        decoder.decode(data[start : start + _PIECE].tobytes())
    decoder.decode(b"", final=True)
    inside = offsets[offsets < data.size]
    if ((data[inside] & 0xC0) == _CONTINUES).any():
        raise ValueError("name offsets cut a character in two")
