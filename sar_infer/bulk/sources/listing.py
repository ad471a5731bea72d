"""From SOURCE arguments to numbered pieces: one after the other, the same every time, without holding them all."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from sar_infer.bulk.items import Broken, Piece, Unit
from sar_infer.bulk.sources import row_groups, tars
from sar_infer.bulk.sources.expand import places
from sar_infer.bulk.sources.paths import Paths
from sar_infer.errors import InputError


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
            if next(places(argument), None) is None:
                raise InputError(f"{argument}: stands for nothing")
        next(self.pieces())

    def pieces(self) -> Iterator[Piece]:
        """All pieces, in the order of the arguments.

        Raises:
            InputError: a list, a folder or a column is not there.
        """
        for number, unit in enumerate(self._units()):
            yield Piece(number, unit)

    def _units(self) -> Iterator[Unit]:
        found = itertools.chain.from_iterable(places(argument) for argument in self.arguments)
        for kind, group in itertools.groupby(found, _kind):
            if kind == tars.SUFFIX:
                yield from (_shard(place) for place in group)
            elif kind == row_groups.SUFFIX:
                for place in group:
                    yield from row_groups.row_groups(place, self.column, self.key_column)
            else:
                while paths := tuple(itertools.islice(group, self.piece_size)):
                    yield Paths(paths)


def _kind(place: str) -> str:
    suffix = posixpath.splitext(place)[1].lower()
    return suffix if suffix in (tars.SUFFIX, row_groups.SUFFIX) else ""


def _shard(place: str) -> Unit:
    try:
        return tars.TarShard.open(place)
    except InputError as error:
        return Broken(place, str(error).removeprefix(f"{place}: "))
