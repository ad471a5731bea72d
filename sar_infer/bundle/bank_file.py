"""The bank file next to a bundle, which ``sar-bank``, ``sar-serve`` and Python share.

Whoever changes the file holds its lock, reads what is there, and replaces it as a whole. A reader looks with one
``stat``. Without a file the bundle's own bank is used.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from sar_infer.bank import ClassBank
from sar_infer.bank.file import read, write
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import MANIFEST
from sar_infer.errors import BankError, InputError
from sar_infer.storage.files import WAIT, owned

SUFFIX = ".safetensors"
Stamp = tuple[int, int, int] | None
"""Inode, time of the last change in nanoseconds and size of a file; None if it is not there."""


def check_place(path: Path, *, changeable: bool = True) -> None:
    """Check that there can be a bank file at a path, and with ``changeable`` that it can be made or replaced.

    Raises:
        InputError: It is a folder, part of a bundle, no name for a bank file, or its folder is missing or cannot be
            written.
    """
    file = Path(os.path.realpath(path))
    if (file / MANIFEST).is_file():
        raise InputError(
            f"{path}: is a bundle; name a bank file outside of it, such as shop{SUFFIX}, "
            f"and the bundle with --bundle {shlex.quote(str(path))}"
        )
    if file.is_dir():
        raise InputError(f"{path}: is a folder; expected a bank file, such as shop{SUFFIX}")
    if not file.parent.is_dir():
        raise InputError(f"{path}: no such folder; make it first")
    if not changeable:
        return
    if (file.parent / MANIFEST).is_file():
        raise InputError(f"{path}: is part of a bundle, which never changes; name a file outside of it")
    if not file.exists() and file.suffix != SUFFIX:
        raise InputError(f"{path}: no such bank file; the name of a new one ends in {SUFFIX}")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: its folder cannot be written, and a change replaces the file; make it writable")


def banks_by_name(paths: Sequence[str], bundle: Bundle) -> dict[str, ClassBank]:
    """Return the banks of several files by name: that of the file, without its suffix.

    Raises:
        InputError: Two files have the same name.
        BankError: A file is missing, damaged or belongs to another bundle; SchemaError if it needs a newer reader.
    """
    names = [Path(path).name.removesuffix(SUFFIX) for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two banks are named {twice}; rename one file, since results have the name of each bank")
    return {name: BankFile(Path(path), bundle, missing=False).bank for name, path in zip(names, paths, strict=True)}


class BankFile:
    """A bank file as a process reads and changes it; safe to share between threads.

    Args:
        path: The file; without one, the bundle's bank is used.
        bundle: The bundle that it belongs to.
        missing: The file may be missing.

    Raises:
        BankError: The file is damaged, or missing and may not be, or belongs to another bundle.
        SchemaError: It needs a newer reader.
    """

    def __init__(self, path: Path, bundle: Bundle, *, missing: bool = True) -> None:
        self.path, self._bundle = path, bundle
        self._lock = threading.Lock()
        self._seen: tuple[Stamp, ClassBank] = None, bundle.bank
        if not missing and not path.is_file():
            ClassBank.load(path)  # reports what is wrong
        self.look()

    @property
    def bank(self) -> ClassBank:
        """Return the bank at the last look or save."""
        return self._seen[1]

    def look(self) -> ClassBank:
        """Return the bank as it is now: what was confirmed before this call, by any process, is in it.

        Stamp and bank are one value, set when the bank has been read whole, so that a look never takes an old bank for
        the present one. If the file is gone, the bank stays.

        Raises:
            BankError: The file was replaced by one that cannot be used.
            SchemaError: It needs a newer reader.
        """
        stamp, bank = self._seen
        if stamp_of(self.path) in (None, stamp):
            return bank
        return self._read(Path(os.path.realpath(self.path)))

    def _read(self, file: Path) -> ClassBank:
        """Return the bank of a file, to which the path may lead no longer."""
        with self._lock:
            stamp = stamp_of(file)
            if stamp not in (None, self._seen[0]):
                encoder, base = self._bundle.manifest.encoder_digest, self._bundle.bank
                self._seen = stamp, read(file, encoder, base, name=self.path)
            return self._seen[1]

    @contextlib.contextmanager
    def changing(self) -> Iterator[tuple[Path, ClassBank]]:
        """Hold the file's lock, and yield the file that is locked and its bank as it is now; ``save`` replaces it.

        If the path is a link, it may be turned to another file meanwhile; that one is neither read nor written.

        Raises:
            WriteError: Another process is changing the file.
            BankError: The file cannot be used.
        """
        if self.path.is_symlink() and not self.path.exists():
            raise BankError(f"{self.path}: is a link to a file that is not there")
        with owned(self.path, WAIT) as file:
            yield file, self._read(file)

    def save(self, file: Path, bank: ClassBank) -> None:
        """Write a bank to the file that ``changing`` has locked.

        Raises:
            OSError: It cannot be written; the old file is still there.
        """
        write(file, bank)
        with self._lock:
            self._seen = stamp_of(file), bank


def stamp_of(file: Path) -> Stamp:
    """Return what changes whenever a file is replaced; None if it is not there."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
