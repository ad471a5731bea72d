"""The bank file beside a bundle, which ``sar-bank`` and ``sar-serve`` share: where it may lie, and reading it.

Whoever changes the file holds its lock (``storage.files.owned``), reads what is there, and replaces it as a whole. A
file that does not exist stands for the bundle's own bank.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

from sar_infer.bank import ClassBank
from sar_infer.bank.old_files import KIND
from sar_infer.bank.rebase import Embed, Rebased, detached, rebased
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import MANIFEST
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.storage.files import owned

SUFFIX = ".safetensors"
WAIT = 3.0
"""Seconds to wait for another process that changes the file."""
_MOUNTS = Path("/proc/self/mountinfo")
Stamp = tuple[int, int, int] | None
"""Inode, time of the last change in nanoseconds and size of a file; None if it is not there."""


def check_changeable(path: Path) -> None:
    """Check that a bank file can be made or replaced at a path.

    Raises:
        InputError: it is a folder, part of a bundle, mounted as a single file, no name for a bank file, or its folder
            is missing or cannot be written.
    """
    check_folder(path)
    file = Path(os.path.realpath(path))
    if _in_bundle(file):
        raise InputError(f"{path}: is part of a bundle, which never changes; name a file outside of it")
    if not file.exists() and file.suffix != SUFFIX:
        raise InputError(f"{path}: no such bank file; the name of a new one ends in {SUFFIX}")
    if _is_mounted(file):
        raise InputError(f"{path}: is mounted as a single file, which cannot be replaced; mount its folder instead")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{path}: its folder cannot be written, and a change replaces the file; make {file.parent} writable for "
            "this user"
        )


def check_folder(path: Path) -> None:
    """Check that there can be a bank file at a path; raise InputError if it is a folder, or its folder is missing."""
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


def check_encoder(path: Path, bundle: Bundle) -> None:
    """Raise InputError if a bank file is there and belongs to another encoder than a bundle that nobody has named."""
    if path.is_file() and KIND.encoder_of(path) != bundle.manifest.encoder_digest:
        raise InputError(
            f"{path}: belongs to another encoder than the bundle that ships; name its own bundle with --bundle, or "
            f"carry its changes over to the one that ships: sar-bank rebase {shlex.quote(str(path))} --bundle "
            f"{shlex.quote(str(bundle.location))}"
        )


def read(path: Path, bundle: Bundle, previous: ClassBank | None = None, *, whole: bool = False) -> ClassBank:
    """Return the bank of a file, replayed on a bundle's.

    Args:
        path: The file.
        bundle: The bundle to whose encoder it must belong.
        previous: The bank of this file as it was before; what has not changed since is not read again.
        whole: Check every byte of a large one too.

    Raises:
        BankError: It is missing, damaged or of another encoder.
        SchemaError: It needs a newer reader.
    """
    encoder = KIND.encoder_of(path)
    expected = bundle.manifest.encoder_digest
    if encoder != expected:
        raise BankError(
            f"{path}: belongs to another encoder than the bundle {bundle.location}; name the bundle that it was made "
            f"with (--bundle), or carry its changes over: sar-bank rebase {shlex.quote(str(path))} --bundle "
            f"{shlex.quote(str(bundle.location))} (expected {expected[:8]}, the bank has {encoder[:8]})"
        )
    bank = ClassBank.load(path, expected, bundle.bank, previous=previous, whole=whole)
    if bank.dim != bundle.manifest.embed_dim:
        raise BankError(f"{path}: rows of {bank.dim} numbers, the bundle has {bundle.manifest.embed_dim}")
    return bank


def replayed(path: Path, bundle: Bundle, embed: Embed, previous: ClassBank | None = None) -> Rebased:
    """Return the bank of a file, replayed on a bundle's bank, whatever encoder it belongs to.

    Args:
        path: The file.
        bundle: The bundle.
        embed: Its name encoder, for a file of another encoder.
        previous: As for ``read``.

    Raises:
        BankError: It is missing or damaged, or no class is left that can be an answer.
        SchemaError: It needs a newer reader.
    """
    if KIND.encoder_of(path) == bundle.manifest.encoder_digest:
        return Rebased(read(path, bundle, previous))
    try:
        return rebased(detached(path), bundle.bank, embed)
    except (BankError, ClassNameError) as error:
        raise BankError(f"{path}: its changes do not suit this bundle: {error}") from None


class BankFile:
    """A bank file as a process reads it: each look at it takes one ``stat``, and reads what is new.

    Args:
        path: The file; a missing one stands for the bundle's bank.
        bundle: The bundle on whose bank it is replayed.
        embed: The bundle's name encoder, for a file of another encoder; None refuses such a file.
        missing: The file may be missing.

    Attributes:
        bank: The bank at the last look.
        rebased: How the bank came to this bundle from another encoder's; None if the file belongs to this one.

    Raises:
        BankError: The file is damaged, or missing and may not be, or of another encoder and ``embed`` is None.
        SchemaError: It needs a newer reader.
    """

    def __init__(self, path: Path, bundle: Bundle, embed: Embed | None = None, *, missing: bool = True) -> None:
        self.path, self._bundle, self._embed = path, bundle, embed
        self._lock = threading.Lock()
        self._locked: Path | None = None
        self.bank = bundle.bank
        self.rebased: Rebased | None = None
        self._looked: Stamp = None
        if not missing and not path.is_file():
            read(path, bundle)  # says what is wrong
        self.look()

    @property
    def changed(self) -> bool:
        """Return True if the file was replaced since the last look; one that is gone has not changed."""
        stamp = stamp_of(self.path)
        return stamp is not None and stamp != self._looked

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the file's lock; ``save`` writes to the file that is locked, wherever a link at ``path`` points then.

        Raises:
            WriteError: Another process is changing it.
        """
        with owned(self.path, WAIT) as file:
            self._locked = file
            try:
                yield
            finally:
                self._locked = None

    def look(self) -> ClassBank:
        """Return the bank as it is now; what others have written is replayed.

        Raises:
            BankError: The file was replaced by one that cannot be used; the bank stays.
            SchemaError: It needs a newer reader; the bank stays.
        """
        path = self._locked or self.path
        if stamp_of(path) in (None, self._looked):
            return self.bank
        with self._lock:
            stamp = stamp_of(path)
            if stamp is not None and stamp != self._looked:
                if self._embed is None:
                    self.bank, self.rebased = read(path, self._bundle, self.bank), None
                else:
                    result = replayed(path, self._bundle, self._embed, self.bank)
                    same_encoder = KIND.encoder_of(path) == self._bundle.manifest.encoder_digest
                    self.bank, self.rebased = result.bank, None if same_encoder else result
                self._looked = stamp
            return self.bank

    def save(self, bank: ClassBank) -> None:
        """Write a bank, whose file this process owns.

        Raises:
            BankError: A bank file cannot hold it.
            OSError: It cannot be written.
        """
        path = self._locked or self.path
        bank.save(path)
        with self._lock:
            self.bank, self._looked = bank, stamp_of(path)


def stamp_of(file: Path) -> Stamp:
    """Return what changes whenever a file is replaced; None if it is not there."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _in_bundle(file: Path) -> bool:
    """Return True if a manifest in the same folder lists the file."""
    try:
        manifest = json.loads((file.parent / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    files = manifest.get("files") if isinstance(manifest, dict) else None
    return isinstance(files, dict) and file.name in files


def _is_mounted(file: Path) -> bool:
    """Return True if the file itself is a mount point, as Linux tells it."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return False
    mounted = (line.split(b" ")[4].decode("unicode_escape").encode("latin-1") for line in lines)
    return os.fsencode(file) in mounted
