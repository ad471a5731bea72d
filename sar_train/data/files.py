"""Write files atomically, with errors that say how to go on."""

from __future__ import annotations

from pathlib import Path

from sar_infer.storage.files import write_atomically
from sar_train.errors import DataError


def write_atomic(path: Path, content: bytes) -> None:
    """Write to a temporary sibling, then rename it into place; parent folders are made.

    Raises:
        DataError: it cannot be written; nothing is left behind and an older file stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, [content])
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: cannot be written ({reason}); free space or choose another place") from None
