"""The bank file beside a bundle, which ``sar-bank`` and ``sar-serve`` share: where it may lie, and how it is taken up.

Whoever changes the file holds its lock (``storage.files.owned``), reads what is there, and replaces it as a whole. A
file that does not exist stands for the bundle's own bank.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

from sar_infer.bank import ClassBank
from sar_infer.bank.edits import listed
from sar_infer.bank.following import Embed, follow, photos_missing
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import MANIFEST
from sar_infer.errors import BankError, ClassNameError, InputError, WriteError
from sar_infer.storage.files import owned, sync_folder, write_atomically
from sar_infer.storage.tensor_file import TensorFile

SUFFIX = ".safetensors"
WAIT = 3.0
"""Seconds to wait for another process that changes the file."""
_PIECE = 8 << 20
_MOST_NAMED = 20
_log = logging.getLogger("sar_infer.bank")
_MOUNTS = Path("/proc/self/mountinfo")
BankDigests = tuple[str, str]
"""Of names and embeddings, and of the rest."""


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
    if path.is_file() and ClassBank.load(path).encoder_digest != bundle.manifest.encoder_digest:
        raise InputError(
            f"{path}: belongs to another encoder than the bundle that ships; name its own bundle with --bundle, or "
            f"carry its classes over to the one that ships with --bundle {bundle.place}"
        )


def read(path: Path, bundle: Bundle, *, whole: bool = False) -> ClassBank:
    """Return the bank of a file.

    Args:
        path: The file.
        bundle: The bundle to whose encoder it must belong.
        whole: Check every byte of a large one too.

    Raises:
        BankError: it is missing, damaged or of another encoder.
        SchemaError: it needs a newer reader.
    """
    bank, expected = (ClassBank.verify if whole else ClassBank.load)(path), bundle.manifest.encoder_digest
    if bank.encoder_digest != expected:
        raise BankError(
            f"{path}: belongs to another encoder than the bundle {bundle.place}; name the bundle that it was made with "
            f"(--bundle), or embed its added classes anew: sar-bank add NEW{SUFFIX} --from {shlex.quote(str(path))} "
            f"(expected {expected[:8]}, the bank has {bank.encoder_digest[:8]})"
        )
    if bank.embeddings.shape[1] != bundle.manifest.embed_dim:
        raise BankError(
            f"{path}: rows of {bank.embeddings.shape[1]} numbers, the bundle has {bundle.manifest.embed_dim}"
        )
    return bank


def digests(path: Path) -> BankDigests | None:
    """Return the digests that a file states in its header; None if there is no readable file."""
    try:
        with path.open("rb") as stream:
            found = TensorFile(stream).metadata
    except (OSError, ValueError):
        return None
    return _digests(found)


def digests_of(bank: ClassBank) -> BankDigests | None:
    """Return the digests of the file that a bank was loaded from; None if it was made here."""
    return None if bank.file is None else _digests(bank.file.metadata)


def taken_up(path: Path, bundle: Bundle, embed: Embed, *, write: bool, by: str = "") -> ClassBank:
    """Return the bank of a file for a bundle, the bundle's own if there is no file.

    If the file belongs to another encoder, its changes follow to this one.

    The file of the other encoder is kept beside the new one, as ``NAME.DIGEST.safetensors`` with the first 16 digits of
    the encoder's digest. If this encoder was left before, the bank that was kept then is taken up again, and gets what
    has changed since.

    Args:
        path: The file.
        bundle: The bundle.
        embed: Its name encoder.
        write: Write the file if it follows; else the result is only returned.
        by: The author of the change.

    Raises:
        BankError: the file is damaged, or a class that was added does not suit the bundle; nothing was changed.
        WriteError: it cannot be written; nothing was changed.
    """
    encoder = bundle.manifest.encoder_digest
    if not os.path.lexists(path):
        return bundle.bank
    if ClassBank.load(path).encoder_digest == encoder:
        return read(path, bundle)
    with owned(path, WAIT) if write else contextlib.nullcontext(path) as file:
        old = ClassBank.verify(file)
        if old.encoder_digest == encoder:  # another server was faster
            return read(file, bundle)
        before = kept_file(file, encoder)
        kept = ClassBank.verify(before, encoder) if before.exists() else None
        try:
            after = follow(old, bundle.bank, embed, kept, by=by)
        except (BankError, ClassNameError) as error:
            raise BankError(
                f"{path}: a class that was added does not suit this bundle: {error}; serve the bundle it was added to "
                "and remove it, or move the file away"
            ) from None
        if missing := photos_missing(old, after):
            _log.warning(
                "%s: the photos of %s were embedded by another encoder and do not count here; add them again",
                path,
                ", ".join(map(repr, missing)) if len(missing) <= _MOST_NAMED else listed(missing),
            )
        if write:
            try:
                previous = kept_file(file, old.encoder_digest)
                _keep(file, previous)
                after.save(file)
            except OSError as error:
                raise WriteError(f"{path}: cannot be written for this bundle ({error.strerror or error})") from None
            _log.warning(
                "%s: belonged to another encoder; rewritten for this bundle with %d classes instead of %d; "
                "the previous file is kept as %s",
                path,
                len(after.names),
                len(old.names),
                previous,
            )
        return after


def kept_file(path: Path, encoder_digest: str) -> Path:
    """Return where the bank of an encoder is kept while the file itself belongs to another one."""
    file = Path(os.path.realpath(path))
    return file.with_name(f"{file.stem}.{encoder_digest[:16]}{SUFFIX}")


def _digests(metadata: Mapping[str, str]) -> BankDigests:
    return metadata.get("content_digest", ""), metadata.get("record_digest", "")


def _keep(file: Path, kept: Path) -> None:
    """Give the file's content a second name, which stays when the file is replaced."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        os.link(file, temporary)
    except OSError:  # a file system without links
        with file.open("rb") as stream:
            write_atomically(kept, iter(lambda: stream.read(_PIECE), b""))
        return
    temporary.replace(kept)
    temporary.unlink(missing_ok=True)  # it stays if both were names of one file already
    sync_folder(file.parent)


def _in_bundle(file: Path) -> bool:
    """Return True if a manifest in the same folder lists the file."""
    try:
        manifest = json.loads((file.parent / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    return isinstance(listed, dict) and file.name in listed


def _is_mounted(file: Path) -> bool:
    """Return True if the file itself is a mount point, as Linux tells it."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return False
    places = (line.split(b" ")[4].decode("unicode_escape").encode("latin-1") for line in lines)
    return os.fsencode(file) in places
