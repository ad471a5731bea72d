"""The inputs of a bulk run in numbered chunks, each of which yields its items in an order that never changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sar_infer.bulk.containers import TAR, Flaw, Item, parquet_items, printable, tar_items
from sar_infer.errors import reason_of
from sar_infer.images.formats import suffix_of
from sar_infer.images.inputs import CONTAINERS

_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Chunk:
    """Images that are files of their own, or those of one tar or Parquet file.

    Attributes:
        number: Its number among the chunks of the run, from 0.
        paths: Paths or URLs of the images, or of the one file that holds them.
        group: The row group of a Parquet file; None is all of the file.
        first: The number of the group's first row in the file.
        rows: How many rows the group has.
    """

    number: int
    paths: tuple[str, ...]
    group: int | None = None
    first: int = 0
    rows: int | None = None

    @classmethod
    def parse(cls, number: int, line: str | bytes) -> Chunk:
        """Return the chunk that ``line`` wrote."""
        paths, *rest = json.loads(line)
        return cls(number, tuple(paths), *rest)

    def line(self) -> str:
        """Return everything but the number as a line of ASCII."""
        return json.dumps([self.paths, *([] if self.group is None else [self.group, self.first, self.rows])]) + "\n"

    @property
    def container(self) -> str:
        """Return the suffix of the one file that holds the images; empty if each is a file of its own."""
        return container(self.paths[0])

    @property
    def count(self) -> int | None:
        """Return the number of inputs; None if it is not known before they are read."""
        return self.rows if self.container else len(self.paths)

    def items(self, column: str, key_column: str | None) -> Iterator[Item]:
        """Yield the inputs. If a file that holds images is damaged or gone, the last item says so.

        Args:
            column: Column of the images in Parquet files.
            key_column: Column of their keys; None = ``FILE#ROW``.
        """
        location = self.paths[0]
        if not self.container:
            yield from (Item(printable(path), path) for path in self.paths)
            return
        number = 0
        try:
            if self.container == TAR:
                members = tar_items(location)
            else:
                members = parquet_items(location, self.group, self.first, self.rows, column, key_column)
            for item in members:
                yield item
                number += 1
        except Exception as error:  # pyarrow and storage raise almost anything
            yield self.rest(number, reason_of(error))

    def rest(self, number: int, reason: str) -> Item:
        """Return one input for all after the first ``number``, which cannot be read."""
        what = "the rest" if self.container == TAR else f"row {self.first + number} on"
        return Item(printable(self.paths[0]), Flaw("source", f"{what} cannot be read: {reason}"))


def container(location: str) -> str:
    """Return the suffix of a file that holds images, empty for all other files."""
    suffix = suffix_of(location)
    return suffix if suffix in CONTAINERS else ""


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield items in lists of ``size``, or fewer if they hold 64 MiB of encoded images."""
    batch: list[Item] = []
    held = 0
    for item in items:
        batch.append(item)
        held += len(item.source) if isinstance(item.source, bytes) else 0
        if len(batch) == size or held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
