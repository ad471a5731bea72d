"""From SOURCE arguments to numbered pieces: one after the other, the same every time, without holding them all."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sar_infer.bulk.items import Broken, Piece, Unit
from sar_infer.bulk.sources import row_groups, tars
from sar_infer.bulk.sources.expand import Warn, places
from sar_infer.bulk.sources.paths import Paths
from sar_infer.errors import InputError

Wanted = Callable[[int], bool]


@dataclass(frozen=True)
class Sources:
    """What a run reads.

    Attributes:
        arguments: Files, folders, globs, brace patterns, URLs, lists.
        column: Of the images in Parquet files.
        key_column: Of their keys; None = ``FILE#ROW``.
        piece_size: Listed images of a piece; a tar shard or a row group is always one.
    """

    arguments: tuple[str, ...]
    column: str = "image"
    key_column: str | None = None
    piece_size: int = 4096

    def check(self) -> None:
        """See that every argument stands for something, before anything is done.

        Raises:
            InputError: one does not.
        """
        for argument in self.arguments:
            first = next(places(argument), None)
            if first is None:
                raise InputError(f"{argument}: stands for nothing")
            if _kind(first) == row_groups.SUFFIX:
                row_groups.check(first, self.column, self.key_column)
        if not any(piece.unit.count != 0 for piece in self.pieces()):
            raise InputError(f"{', '.join(self.arguments)}: no image in it")

    def pieces(self, wanted: Wanted = lambda _: True, warn: Warn = lambda _: None) -> Iterator[Piece]:
        """Pieces, in the order of the arguments.

        Args:
            wanted: Whether a number is; shards of others are not even opened.
            warn: Told of what is passed over.

        Raises:
            InputError: a list or a folder is not there.
        """
        for number, opened in enumerate(self._units(warn)):
            if wanted(number):
                yield Piece(number, opened())

    def _units(self, warn: Warn) -> Iterator[Callable[[], Unit]]:
        found = itertools.chain.from_iterable(places(argument, warn) for argument in self.arguments)
        for kind, group in itertools.groupby(found, _kind):
            if kind == tars.SUFFIX:
                yield from (partial(_shard, place) for place in group)
            elif kind == row_groups.SUFFIX:
                for place in group:
                    yield from map(_itself, row_groups.row_groups(place, self.column, self.key_column))
            else:
                while paths := tuple(itertools.islice(group, self.piece_size)):
                    yield _itself(Paths(paths))


def _itself(unit: Unit) -> Callable[[], Unit]:
    return lambda: unit


def _kind(place: str) -> str:
    suffix = posixpath.splitext(place)[1].lower()
    return suffix if suffix in (tars.SUFFIX, row_groups.SUFFIX) else ""


def _shard(place: str) -> Unit:
    try:
        return tars.TarShard.open(place)
    except InputError as error:
        return Broken(place, str(error).removeprefix(f"{place}: "))
