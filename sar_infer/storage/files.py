"""Files that are written whole or not at all, and locks that keep other processes away from them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from sar_infer.errors import WriteError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Content = bytes | bytearray | memoryview
_LONGEST_NAME = 200
"""Bytes; a longer name leaves no room for what a lock adds to it."""
WAIT = 3.0
"""Seconds to wait for another process that changes a bank file."""
_TRY_EVERY = 0.02
"""Seconds between two attempts to take a lock that another process holds."""
_MOST_TRIES = 100
"""Attempts to make a lock in a folder that other processes remove."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of a file system without locks."""


def write_file(path: Path, content: Content) -> None:
    """Write a file and flush it to the disk, so that a later rename never shows it without its content."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def write_atomically(path: Path, pieces: Iterable[Content], *, new_time: bool = False) -> None:
    """Write the content of a file, end to end; see ``replacing``. A link stays a link to the file that is replaced."""
    with replacing(Path(os.path.realpath(path)), new_time=new_time) as stream:
        stream.writelines(pieces)


@contextlib.contextmanager
def replacing(path: Path, *, new_time: bool = False) -> Iterator[IO[bytes]]:
    """Yield a temporary sibling to write, then rename it into place; the rename outlives a power cut.

    The new file has the mode of the old one.

    Args:
        path: The file; its folder must exist. A link is replaced, not followed: a path that a lock has resolved is
            the one that is written, whatever is put there meanwhile.
        new_time: Give the file a later time of change than the old one's, whatever the resolution of the clock.

    Raises:
        OSError: The file cannot be written; nothing is left behind and an older file stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileNotFoundError):
            old = path.stat()
            temporary.chmod(stat.S_IMODE(old.st_mode))
            if new_time:
                now = max(time.time_ns(), old.st_mtime_ns + 1)
                os.utime(temporary, ns=(now, now))
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename in a folder durable; only POSIX systems can, and not on every file system."""
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
def locked(path: Path) -> Iterator[None]:
    """Keep every other process away from a path; the lock ends with the process, however that ends.

    The lock is the hidden sibling ``.NAME.lock``, so that users, containers and machines that share the folder share
    the lock. It is removed at the end, and so are folders that were made for it if they are still empty. No lock is
    taken if the system or the file system has none (Windows, some network file systems), or if the folder cannot be
    written, since then nobody can change the path.

    Args:
        path: A file or folder, which need not exist.

    Raises:
        BlockingIOError: Another process holds the lock.
        WriteError: A link, a folder or something else has the lock's name, or the lock cannot be made.
    """
    if fcntl is None:
        yield
        return
    name = os.fsencode(path.name)
    short = path.name if len(name) <= _LONGEST_NAME else hashlib.sha256(name).hexdigest()[:16]
    lock = path.with_name(f".{short}.lock")
    missing = [folder for folder in lock.parents if not folder.exists()]
    handle = _acquire(lock)
    try:
        yield
    finally:
        if handle is not None:
            _release(lock, handle)
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def owned(path: Path, wait: float = 0) -> Iterator[Path]:
    """Lock a file for writing, remove what interrupted writes of it left behind, and yield the file that is locked.

    Every writer must use this, and read and write the file that it yields: ``path`` may be a link, which somebody may
    turn to another file meanwhile. See ``locked``.

    Args:
        path: The file, or a link to it.
        wait: Seconds to wait for another process that is changing the file.

    Raises:
        WriteError: Another process is changing the file, or the lock cannot be made.
    """
    end = time.monotonic() + wait
    with contextlib.ExitStack() as stack:
        while True:
            file = Path(os.path.realpath(path))
            try:
                stack.enter_context(locked(file))
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise WriteError(f"{path}: another process is changing it; try again when it is done") from None
                time.sleep(_TRY_EVERY)
        remove_cut_off(file.parent, file.name)
        yield file


def _acquire(lock: Path) -> int | None:
    """Return the handle that holds a lock, or None if the file system has no locks or cannot be written.

    Raises:
        BlockingIOError: Another process holds the lock.
        WriteError: The lock cannot be made.
    """
    while True:
        handle = None
        try:
            handle = _opened(lock)
            if handle is None:
                return None
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EEXIST, "something else has its name")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        os.close(handle)  # its last holder has just removed it


def _opened(lock: Path) -> int | None:
    """Return a handle of the lock file, which is made if missing; None if the folder cannot be written.

    Raises:
        WriteError: the folder is missing and cannot be made, as in ``/proc`` or below a file.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    tries = _MOST_TRIES
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            return os.open(lock, os.O_RDWR | os.O_CREAT | flags, 0o666)
        except FileNotFoundError:  # another process has just removed the folder, which it had made for the lock
            tries -= 1
            if not tries:
                raise WriteError(f"{lock.parent}: this folder cannot be made") from None
            continue
        except (FileExistsError, NotADirectoryError):
            raise WriteError(f"{lock.parent}: this folder cannot be made: a file is in its way") from None
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        try:
            return os.open(lock, os.O_RDONLY | flags)  # made by another user
        except FileNotFoundError:
            return None


def _is_at(lock: Path, handle: int) -> bool:
    """Return whether an open file is still the one with this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(lock))
    except FileNotFoundError:
        return False


def _release(lock: Path, handle: int) -> None:
    """Release a lock; the last holder removes its file."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(lock, handle):
            lock.unlink()
    os.close(handle)


def remove_cut_off(folder: Path, name: str | None = None) -> None:
    """Remove what interrupted ``replacing`` left in a folder, of one file or of all."""
    temporary = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.[0-9a-f]{{8}}")
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if temporary.fullmatch(entry.name):
                entry.unlink()
