"""Where the classes of a call come from, without a list as long as the bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from sar_infer.results import Source


class Sources(Sequence[Source]):
    """Where each class comes from: some of the bank, then those given with the call."""

    def __init__(self, bank: int, given: tuple[Source, ...] = ()) -> None:
        self._bank = bank
        self._given = given

    def __len__(self) -> int:
        return self._bank + len(self._given)

    @overload
    def __getitem__(self, place: int) -> Source: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Source]: ...
    def __getitem__(self, place: int | slice) -> Source | Sequence[Source]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        return "bank" if number < self._bank else self._given[number - self._bank]

    def __contains__(self, source: object) -> bool:
        return source in self._given or (source == "bank" and self._bank > 0)
