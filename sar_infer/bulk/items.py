"""The inputs of a bulk run: numbered pieces, each of which yields its items in an order that never changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sar_infer.storage.strict_json import canonical_digest

MOST_BYTES = 100 * 2**20
"""The largest encoded image in bytes; a larger one is set aside unread."""
FlawKind = Literal["format", "size", "unreadable", "source", "crash", "timeout"]
"""The kinds of ``ImageError``, and: ``source`` = the file that holds the images is damaged or gone; ``crash`` = the
image killed a process; ``timeout`` = a process was ended because the image took too long."""


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
        """Return the bytes of the image if it is in memory, else 0."""
        return len(self.source) if isinstance(self.source, bytes) else 0


class Unit(Protocol):
    """The inputs of one piece: a frozen dataclass of plain values."""

    @property
    def identity(self) -> dict[str, Any]:
        """Return plain values that tell these inputs from all others; the names of parts depend on it."""

    @property
    def count(self) -> int | None:
        """Return the number of inputs, None if it is not known before they are read."""

    def items(self) -> Iterator[Item | None]:
        """Yield the inputs, None for a file that is no image; an unreadable input is an item with a flaw."""


@dataclass(frozen=True)
class Broken:
    """A container that cannot be listed: one input, whose row says why. The reason is no part of its identity."""

    location: str
    reason: str = field(compare=False)

    @property
    def identity(self) -> dict[str, Any]:
        """Return kind, and path or URL."""
        return {"kind": "Broken", "place": self.location}

    @property
    def count(self) -> int:
        """Return 1."""
        return 1

    def items(self) -> Iterator[Item]:
        """Yield the item with its flaw."""
        yield Item(printable(self.location), Flaw("source", self.reason))


@dataclass(frozen=True)
class Piece:
    """A unit with its number among all units of the run, from 0."""

    number: int
    unit: Unit

    @property
    def digest(self) -> str:
        """Return a SHA-256 (hex) that identifies the inputs."""
        identity = {name: _text(value) for name, value in self.unit.identity.items()}
        return canonical_digest({"number": self.number, **identity})


def printable(name: str | os.PathLike[str]) -> str:
    """Return a name as a key: bytes that are not UTF-8 get backslashes, so that any program can read the row."""
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return [_text(item) for item in value] if isinstance(value, list | tuple) else value
