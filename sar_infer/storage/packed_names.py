"""Class names as two arrays, which are decoded when they are used, so that a million of them load at once."""

from __future__ import annotations

import bisect
import codecs
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

_CONTINUES = 0x80
"""The upper two bits of a UTF-8 byte that does not begin a character."""
_PIECE = 1 << 20
_BLOCK = 16_384
"""Names that are decoded at once."""
_MANY = 16
"""Of so many names one is enough to make a dictionary of all worth its memory."""


class PackedNames(Sequence[str]):
    """A sequence of names that equals the tuple of the same names.

    Args:
        data: (B,) uint8, all names in UTF-8 end to end.
        offsets: (C+1,) int64, where each name begins and the last one ends.

    Raises:
        ValueError: The offsets do not fit, or a name is not UTF-8.
    """

    __slots__ = ("_places", "data", "offsets")

    def __init__(self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        _check(data, offsets)
        self.data = data
        self.offsets = offsets
        self._places: Places | None = None

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
        return cls._sound(data, _offsets(np.concatenate([np.empty(0, np.int64), *lengths])))

    @classmethod
    def _sound(cls, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> PackedNames:
        """Return names that are made of checked ones."""
        result = cls.__new__(cls)
        result.data, result.offsets, result._places = data, offsets, None
        return result

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
            return self._sound(self.data[bounds[0] : bounds[-1]], bounds - bounds[0])
        if not -len(self) <= place < len(self):
            raise IndexError(f"no name {place} among {len(self)}")
        place %= len(self)
        return self.data[self.offsets[place] : self.offsets[place + 1]].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self.blocks())

    def blocks(self) -> Iterator[list[str]]:
        """Yield all names, some thousands at a time, which is faster than one by one."""
        for first in range(0, len(self), _BLOCK):
            bounds = self.offsets[first : first + _BLOCK + 1]
            lines = np.insert(self.data[bounds[0] : bounds[-1]], bounds[1:-1] - bounds[0], ord("\n"))
            names = lines.tobytes().decode("utf-8").split("\n")
            if len(names) != len(bounds) - 1:  # a name of an unchecked file has more than one line
                names = [self[first + place] for place in range(len(bounds) - 1)]
            yield names

    @property
    def places(self) -> Places:
        """Return the place of each name; it is made once."""
        if self._places is None:
            self._places = Places(self)
        return self._places

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedNames):
            return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.data, other.data)
        return isinstance(other, tuple) and len(other) == len(self) and all(map(str.__eq__, self, map(str, other)))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3])) + (", …" if len(self) > 3 else "")
        return f"<{len(self)} names: {shown}>"


class Hashes:
    """The places of texts by their hash: two numbers a text, where a dictionary of texts takes ten times as much.

    Args:
        blocks: The texts, in order.
    """

    def __init__(self, blocks: Iterable[Sequence[str]]) -> None:
        found = [np.fromiter(map(hash, block), np.int64, len(block)) for block in blocks]
        hashes = np.concatenate([np.empty(0, np.int64), *found])
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]
        self._view = self._sorted.data

    def candidates(self, text: str) -> list[int]:
        """Return the places, rising, of all texts that may be this one."""
        wanted = hash(text)
        first = last = bisect.bisect_left(self._view, wanted)
        while last < len(self._view) and self._view[last] == wanted:
            last += 1
        found: list[int] = self._order[first:last].tolist()
        return found

    def shared(self) -> list[int]:
        """Return the places, rising, of all texts that may stand more than once."""
        same = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        found: list[int] = np.unique(self._order[np.concatenate([same, same + 1])]).tolist()
        return found


class Places(Mapping[str, int]):
    """The place of each name; of one that stands more than once, the last."""

    def __init__(self, names: PackedNames) -> None:
        self._names = names
        self._hashes = Hashes(names.blocks())

    def __getitem__(self, name: str) -> int:
        for place in reversed(self._hashes.candidates(name)):
            if self._names[place] == name:
                return place
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def repeated(self) -> str | None:
        """Return a name that stands more than once; None if there is none."""
        seen: set[str] = set()
        for place in self._hashes.shared():
            name = self._names[place]
            if name in seen:
                return name
            seen.add(name)
        return None

    def for_many(self, count: int) -> Mapping[str, int]:
        """Return the same for so many look-ups: if they are many, a dictionary, which takes more memory."""
        if count * _MANY < len(self):
            return self
        return {name: place for place, name in enumerate(self._names)}


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
