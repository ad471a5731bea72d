"""Writing files so that a kill or a full disk never leaves half of one behind, nor two processes disturb each other."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from sar_infer.errors import WriteError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Content = bytes | bytearray | memoryview
_LONGEST_NAME = 200
"""Bytes of a name that leaves room for what a lock adds to it."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""Of a file system without locks."""


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
    """Keep every other process from a place; the lock ends with the process, however that ends.

    The lock is the hidden sibling ``.NAME.lock``, so that users, containers and machines that share the folder share
    it. It is removed at the end, and so is its folder if it was made for it and nothing else came into it. Nobody is
    kept out where the system or the file system has no locks (Windows, some network file systems), nor where the folder
    cannot be written, since then nobody can change the place.

    Args:
        place: Of whatever kind; it need not exist.
        shared: Let others in who share it too.

    Raises:
        BlockingIOError: another process has it.
        WriteError: a link, a folder or something else has the lock's name, or it cannot be made.
    """
    if fcntl is None:
        yield
        return
    name = os.fsencode(place.name)
    short = place.name if len(name) <= _LONGEST_NAME else hashlib.sha256(name).hexdigest()[:16]
    lock = place.with_name(f".{short}.lock")
    missing = [folder for folder in lock.parents if not folder.exists()]
    handle = _taken(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            _release(lock, handle)
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def owned(path: Path) -> Iterator[None]:
    """Keep every other process from a file, and clear what writes of it left behind when they were cut off.

    Everyone who writes the file must own it. See ``locked``.

    Raises:
        WriteError: another process is changing it, or the lock cannot be made.
    """
    real = Path(os.path.realpath(path))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(real))
        except BlockingIOError:
            raise WriteError(f"{path}: another process is changing it; try again when it is done") from None
        _clear_cut_off(real)
        yield


def _taken(lock: Path, operation: int) -> int | None:
    """Return the handle that holds a lock; None where there is none to be had and none is needed.

    Raises:
        BlockingIOError: another process has it.
        WriteError: it cannot be made.
    """
    while True:
        handle = None
        try:
            handle = _opened(lock)
            if handle is None:
                return None
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EEXIST, "something else has its name")
            fcntl.flock(handle, operation | fcntl.LOCK_NB)
            if _is_at(lock, handle):
                return handle
        except OSError as error:
            if handle is not None:
                os.close(handle)
            if isinstance(error, BlockingIOError):
                raise
            if handle is not None and error.errno in _NO_LOCKS:
                return None
            reason = "it is a link" if lock.is_symlink() else error.strerror
            raise WriteError(f"{lock}: this lock cannot be taken ({reason}); remove what is there") from None
        os.close(handle)  # its last holder removed it meanwhile


def _opened(lock: Path) -> int | None:
    """Return a handle of the file, which is made where it is missing; None where the folder cannot be written."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            return os.open(lock, os.O_RDWR | os.O_CREAT | flags, 0o666)
        except FileNotFoundError:  # another process has just removed the folder that was made for it
            continue
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        try:
            return os.open(lock, os.O_RDONLY | flags)  # another user's
        except FileNotFoundError:
            return None


def _is_at(lock: Path, handle: int) -> bool:
    """Return whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(lock))
    except FileNotFoundError:
        return False


def _release(lock: Path, handle: int) -> None:
    """Give a lock back; the last one who holds it removes it."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(lock, handle):
            lock.unlink()
    os.close(handle)


def _clear_cut_off(path: Path) -> None:
    """Remove temporary siblings of ``write_atomically``."""
    name = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{8}")
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir():
            if name.fullmatch(entry.name):
                entry.unlink()
