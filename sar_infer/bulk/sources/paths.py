"""Images that are files of their own: some thousand local paths or URLs in a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sar_infer.bulk.items import Item, printable


@dataclass(frozen=True)
class Paths:
    """Images by path or URL; the piece is known by these, not by what is in the files."""

    paths: tuple[str, ...]

    @property
    def count(self) -> int:
        """As many as paths, each an input of its own even where one stands twice."""
        return len(self.paths)

    def items(self) -> Iterator[Item]:
        """One a path; the worker opens it."""
        for path in self.paths:
            yield Item(printable(path), path)
