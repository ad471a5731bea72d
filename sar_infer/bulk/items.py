"""What a bulk run reads: numbered pieces, each of which yields its inputs in an order that never changes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sar_infer.storage.strict_json import canonical_digest

MOST_BYTES = 100 * 2**20
"""Of an encoded image; what is larger is set aside unread."""
FlawKind = Literal["format", "size", "unreadable", "source", "crash", "timeout"]
"""Those of ``ImageError``; ``source`` = what holds the images is damaged or gone; ``crash`` = a process died of it;
``timeout`` = a process was ended because of it."""


@dataclass(frozen=True)
class Flaw:
    """Why there is no answer for an input."""

    kind: FlawKind
    reason: str


@dataclass(frozen=True)
class Item:
    """One input: the key of its row, and a path, a URL, encoded bytes, or why there is nothing to decode."""

    key: str
    source: str | bytes | Flaw

    @property
    def held(self) -> int:
        """Bytes of an image that is held here."""
        return len(self.source) if isinstance(self.source, bytes) else 0


class Unit(Protocol):
    """The inputs of one piece; a frozen dataclass of plain values, which say all there is to know of them."""

    @property
    def count(self) -> int | None:
        """How many inputs, where that is known before they are read."""

    def items(self) -> Iterator[Item | None]:
        """The inputs; what cannot be read is an item with its flaw, never an exception; None = passed over."""


@dataclass(frozen=True)
class Broken:
    """A container that cannot be listed: one input, whose row says why; it is the same one for whatever reason."""

    place: str
    reason: str = field(compare=False)

    @property
    def count(self) -> int:
        """One row."""
        return 1

    def items(self) -> Iterator[Item]:
        """The row."""
        yield Item(printable(self.place), Flaw("source", self.reason))


@dataclass(frozen=True)
class Piece:
    """A unit with its place among all of the run's, from 0."""

    number: int
    unit: Unit

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what the piece reads; another for other inputs."""
        known = [field.name for field in dataclasses.fields(self.unit) if field.compare]  # type: ignore[arg-type]
        fields = {name: _text(getattr(self.unit, name)) for name in known}
        return canonical_digest({"kind": type(self.unit).__name__, "number": self.number, **fields})


def printable(name: str | os.PathLike[str]) -> str:
    """A name as a key: file names that are no UTF-8 get backslashes, so that any program can read the row."""
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return [_text(item) for item in value] if isinstance(value, list | tuple) else value
