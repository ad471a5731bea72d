"""A part is the answers of one piece, committed by one rename; its name says of which inputs under which settings.

``part-000017-1f2e3d4c5b6a.parquet``: piece 17, and the start of a digest over its inputs and the run's settings. A
listing of the folder is therefore all that a resumed run needs to know.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from sar_infer.bulk.items import Piece
from sar_infer.errors import InputError

_PART = re.compile(r"part-(\d{6,})-[0-9a-f]{12}\.(?:jsonl|parquet)")


def part_name(piece: Piece, settings_digest: str, suffix: str) -> str:
    """The file of a piece's answers."""
    digest = hashlib.sha256(f"{settings_digest}{piece.digest}".encode()).hexdigest()
    return f"part-{piece.number:06}-{digest[:12]}{suffix}"


def part_number(name: str) -> int | None:
    """The piece that a file has the answers of; None for other files. What follows the name does not count."""
    match = _PART.match(name)
    return int(match[1]) if match else None


def committed(names: Iterable[str]) -> dict[int, str]:
    """Names of parts by piece.

    Raises:
        InputError: a piece has two.
    """
    found: dict[int, str] = {}
    for name in sorted(names):
        number = part_number(name)
        if number is not None and _PART.fullmatch(name):
            if number in found:
                raise InputError(f"{found[number]} and {name} are of one piece; remove one, or both, and use --resume")
            found[number] = name
    return found
