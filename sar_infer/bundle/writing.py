"""Writing a bundle: into a folder that appears whole or not at all; the card and the manifest come last.

Everything is written to the hidden sibling ``.NAME.partial`` and renamed when it is complete. A kill leaves that
sibling behind, and the next attempt clears it; a lock keeps two attempts apart. An older folder is exchanged for the
new one in a single step if the system can do it (Linux), otherwise by two renames; a kill between them leaves it as
``.NAME.old``, and the next attempt brings it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from sar_infer.bank import ClassBank
from sar_infer.bank.edits import utc_now
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.bundle.card import card
from sar_infer.bundle.manifest import CARD, MANIFEST, Manifest, Provenance, file_entry
from sar_infer.errors import InputError, WriteError
from sar_infer.storage.files import locked, sync_folder, write_file

_EXCHANGE = 2
_HERE = -100


def check_target(out: Path, *, overwrite: bool) -> None:
    """Check that a bundle may be written to ``out``.

    Raises:
        InputError: Something is there; with ``overwrite``, something that is not a bundle.
    """
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out}: exists; choose another --out, or replace it with --overwrite")
    if not (out / MANIFEST).is_file():
        raise InputError(f"{out}: is not a bundle, so it is not replaced; choose another --out")


@contextlib.contextmanager
def staged(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder to write to, which becomes ``out`` if the block ends without an error.

    Raises:
        InputError: See ``check_target``.
        WriteError: Another export to ``out`` is running, or the disk is full or not writable. Nothing has changed.
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


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file of a bundle, which is never written to again, or copy it where that cannot be done."""
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def seal(folder: Path, manifest: Manifest, bank: ClassBank, command: str, versions: Mapping[str, str]) -> Bundle:
    """Write the model card and the manifest of a bundle whose other files are in a folder, and open it as a check.

    Args:
        folder: Holds every other file of the bundle.
        manifest: The manifest to write; ``files``, ``digest`` and all of ``provenance`` but the licences are filled in.
        bank: The bank in the folder.
        command: The command line that made the bundle.
        versions: Of packages that took part; those that the manifest has stay.

    Raises:
        BundleError: A field of the manifest has the wrong type, or the bundle cannot be opened.
        OSError: The folder cannot be written to.
    """
    files = {path.name: file_entry(path) for path in sorted(folder.iterdir())}
    versions = {**manifest.provenance.versions, **versions}
    provenance = Provenance(utc_now(), command, versions, manifest.provenance.licences)
    manifest = dataclasses.replace(manifest, provenance=provenance)
    write_file(folder / CARD, card(dataclasses.replace(manifest, files=files), bank).encode())
    sealed = dataclasses.replace(manifest, files=files | {CARD: file_entry(folder / CARD)}).sealed()
    write_file(folder / MANIFEST, sealed.dump().encode())
    return open_bundle(folder)


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
    """Swap two folders in one step; return False if the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    return rename is not None and rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0
