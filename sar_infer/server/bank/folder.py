"""The folder of ``--state DIR``: one bank file, and a lock that keeps a second server out.

The lock is the kernel's (``flock``), so that it ends with the process in any case; the file ``lock`` stays. Windows has
no such lock: there, nothing keeps two servers from using one folder. An interrupted write leaves a temporary file,
which is removed when the folder is opened again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sar_infer.bank import ClassBank
from sar_infer.errors import BankError, InputError

BANK_FILE = "bank.safetensors"
_LOCK_FILE = "lock"
_CUT_OFF = re.compile(r"\.bank(-[0-9a-f]{16})?\.safetensors\.[0-9a-f]{8}")


class StateFolder:
    """A folder that this process owns until ``close``; it is created if it does not exist.

    Args:
        path: The folder.

    Raises:
        InputError: it cannot be written, or another server uses it.
    """

    def __init__(self, path: Path) -> None:
        self.file = path / BANK_FILE
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"{path}: cannot keep state there ({error.strerror}); choose another folder") from None
        try:
            self._own(self._lock)
            for entry in path.iterdir():
                if _CUT_OFF.fullmatch(entry.name):
                    entry.unlink()
        except OSError as error:
            self.close()
            raise InputError(f"{path}: cannot keep state there ({error.strerror}); choose another folder") from None
        except InputError:
            self.close()
            raise

    def _own(self, lock: int) -> None:
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
            raise InputError(
                f"{self.file.parent}: another server (process {owner}) keeps its state there; "
                "give each server a folder of its own"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())

    def load(self) -> ClassBank | None:
        """Return the bank that was saved last, of any encoder; None if there is none.

        Raises:
            BankError: the file is damaged.
            SchemaError: the file needs a newer reader.
        """
        if not os.path.lexists(self.file):
            return None
        try:
            return ClassBank.verify(self.file)
        except BankError as error:
            raise BankError(
                f"{error}; put a copy of it back, or move it away to begin again with the bundle's own classes"
            ) from None

    def save(self, bank: ClassBank) -> None:
        """Replace the bank file as a whole; it is on disk when this returns.

        Raises:
            OSError: it cannot be written; the old file is still there.
            BankError: there are more names and phrases than fit a file's header; the old file is still there.
        """
        bank.save(self.file)

    def keep(self, bank: ClassBank) -> None:
        """Keep a bank beside the bank file, under a name with its digest.

        Raises:
            OSError: it cannot be written.
        """
        bank.save(self.file.with_name(f"bank-{bank.content_digest[:16]}.safetensors"))

    def close(self) -> None:
        """Release the folder for another process."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
