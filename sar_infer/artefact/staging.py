"""A folder that appears whole or not at all.

Everything is written to the hidden sibling ``.NAME.partial`` and renamed when it is complete. A kill leaves that
sibling behind, which the next attempt clears; a lock keeps two attempts apart. An older folder is exchanged for the new
one in a single step where the system can (Linux), else by two renames; a kill between them leaves it as ``.NAME.old``,
and the next attempt brings it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sar_infer.artefact.manifest import MANIFEST
from sar_infer.errors import InputError, WriteError
from sar_infer.storage.files import locked, sync_folder

_EXCHANGE = 2
_HERE = -100


def check_target(out: Path, *, overwrite: bool) -> None:
    """See that a bundle may be written to ``out``.

    Raises:
        InputError: something is there; with ``overwrite``, something that is not a bundle.
    """
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out}: exists; choose another --out, or replace it with --overwrite")
    if not (out / MANIFEST).is_file():
        raise InputError(f"{out}: is not a bundle, so it is not replaced; choose another --out")


@contextlib.contextmanager
def staged(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty folder to write to, which becomes ``out`` when the block ends without an error.

    Raises:
        InputError: see ``check_target``.
        WriteError: another export to ``out`` is running, or the disk is full or not writable. Nothing has changed.
    """
    final = out.resolve()
    partial, old = (final.with_name(f".{final.name}.{kind}") for kind in ("partial", "old"))
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with locked(final):
            if old.exists() and not final.exists():
                old.rename(final)
            check_target(final, overwrite=overwrite)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                yield partial
                sync_folder(partial)
                _move(partial, final, old)
                sync_folder(final.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                if final.exists():
                    shutil.rmtree(old, ignore_errors=True)
    except BlockingIOError:
        raise WriteError(f"{final}: another export to this place is running") from None
    except OSError as error:
        raise WriteError(f"{out}: not written ({error.strerror or error}); nothing was changed") from error


def _move(partial: Path, final: Path, old: Path) -> None:
    if not final.exists():
        partial.rename(final)
    elif not _exchange(partial, final):
        final.rename(old)
        try:
            partial.rename(final)
        except OSError:
            old.rename(final)
            raise


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where that is not to be had."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    return rename is not None and rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0
