"""Rows as JSON lines; needs nothing beside Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sar_infer.bulk.outputs.rows import Row


@dataclass(frozen=True)
class JsonLines:
    """One object a line, UTF-8, the same keys in all."""

    suffix: str = ".jsonl"

    def pack(self, rows: Sequence[Row]) -> bytes:
        """See ``Form``."""
        return b"".join(_line(row) for row in rows)

    def write(self, path: Path, packed: Iterable[bytes]) -> None:
        """See ``Form``."""
        with path.open("wb") as stream:
            stream.writelines(packed)

    def flaws(self, stream: IO[bytes]) -> tuple[int, list[Row]]:
        """See ``Form``."""
        count, found = 0, []
        for line in stream:
            count += 1
            row = json.loads(line)
            if row["error"] is not None:
                found.append({name: row[name] for name in ("key", "error_kind", "error")})
        return count, found

    def merge(self, path: Path, parts: Iterable[Callable[[], IO[bytes]]]) -> None:
        """See ``Form``."""
        with path.open("wb") as target:
            for part in parts:
                with part() as stream:
                    shutil.copyfileobj(stream, target, 2**20)


def _line(row: Row) -> bytes:
    if row.get("embedding") is not None:
        row = row | {"embedding": row["embedding"].tolist()}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
