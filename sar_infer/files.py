"""Writing files so that a kill or a full disk never leaves half of one behind, nor two processes disturb each other."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from sar_infer.errors import WriteError

Content = bytes | bytearray | memoryview


def write_file(path: Path, content: Content) -> None:
    """Write and flush to the disk, so that a rename that follows never shows a file without its content."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def write_atomically(path: Path, pieces: Iterable[Content]) -> None:
    """Write to a temporary sibling, then rename it into place; the rename outlives a power cut.

    A link stays a link to the file that is replaced, and the new file has the mode of the old one.

    Args:
        path: The file; its folder must exist.
        pieces: The content, end to end.

    Raises:
        OSError: it cannot be written; nothing is left behind and an older file stays as it was.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename in a folder last; only POSIX can, and not on every file system."""
    if os.name != "posix":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(folder)


@contextlib.contextmanager
def locked(place: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes of this machine and user from a place; the lock ends with the process, however that ends.

    Args:
        place: Of whatever kind; it need not exist.
        shared: Let others in who share it too.

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
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def owned(path: Path) -> Iterator[None]:
    """Keep every other process from a file, and clear what writes of it left behind when they were cut off.

    The lock is its hidden sibling ``.NAME.lock``, so that containers and users who share the folder share it; where
    none can be made, it is ``locked``. Everyone who writes the file must own it.

    Raises:
        WriteError: another process is changing it.
    """
    real = Path(os.path.realpath(path))
    with contextlib.ExitStack() as stack:
        try:
            lock = _sibling(real)
            stack.enter_context(locked(real) if lock is None else lock)
        except BlockingIOError:
            raise WriteError(f"{path}: another process is changing it; try again when it is done") from None
        _clear_cut_off(real)
        yield


def _sibling(path: Path) -> contextlib.AbstractContextManager[object] | None:
    """The lock beside a file, held until it is left, then removed; None where there can be none.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return None
    lock = path.with_name(f".{path.name}.lock")
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.lexists(lock) and os.path.samestat(os.fstat(handle), lock.stat())
        except OSError as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                raise
            return None
        if mine:  # else its last holder removed it meanwhile
            return _held(lock, handle)
        os.close(handle)


@contextlib.contextmanager
def _held(lock: Path, handle: int) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(handle)


def _clear_cut_off(path: Path) -> None:
    """Remove temporary siblings of ``write_atomically``."""
    name = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{8}")
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir():
            if name.fullmatch(entry.name):
                entry.unlink()
