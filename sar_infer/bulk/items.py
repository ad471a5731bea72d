"""One input of a bulk run: the key of its row, and its image or why it has none."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

MOST_BYTES = 100 * 2**20
"""The largest encoded image in bytes; a larger one is set aside unread."""
FlawKind = Literal["format", "size", "unreadable", "source", "crash", "timeout"]
"""The kinds of ``ImageError``, and: ``source`` = the file that holds the images is damaged or gone; ``crash`` = the
image killed a process; ``timeout`` = a process was ended because the image took too long."""
OUTAGES = ("source", "crash", "timeout")
"""Kinds that may pass: ``--resume`` tries these inputs again."""
_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})")


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


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a name as a key: bytes that are not UTF-8 become ``\xff``, so that any program can read the row.

    A name that has these characters itself gets ``\x5cxff``, so that two files never have one key.
    """
    name = _LOOKS_ESCAPED.sub(r"\\x5c", os.fspath(name))
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
