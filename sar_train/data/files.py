"""Writing files so that a kill or a full disk never leaves half of one behind, nor two processes disturb each other."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sar_train.errors import DataError


def write_atomic(path: Path, content: bytes) -> None:
    """Write to a temporary sibling, then rename it into place; parent folders are made.

    Raises:
        DataError: it cannot be written; nothing is left behind and an older file stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: cannot be written ({reason}); free space or choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Keep other processes of this machine and user from a place; the lock ends with the process, however that ends.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two processes at one place are not kept apart there
        yield
        return
    name = hashlib.sha256(os.fsencode(place.absolute())).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"sar-clip-{os.getuid()}-{name}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
