"""Taking up changes where they were left, for the bundle they were made to or for another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.errors import BankError, ClassNameError
from sar_infer.server.bank.changes import Base, Changes
from sar_infer.server.bank.folder import StateFolder
from sar_infer.server.bank.snapshot import Snapshot, compose, info_after, names_after

Embed = Callable[[Sequence[tuple[str, ...]]], Floats]
"""Unit rows (N, D) for the phrases of each of N classes, as ``Classifier.embed_phrases`` makes them."""


def resumed(folder: StateFolder, base: Base, embed: Embed) -> Snapshot:
    """What is kept in a folder, for a bundle; without a bank file, the bundle's own bank.

    Raises:
        BankError: the bank file is damaged, or a class in it cannot be carried over.
        SchemaError: the bank file was written for a newer reader.
    """
    found = folder.load()
    if found is None:
        return Snapshot(base, Changes(), base.bank)
    try:
        changes = Changes.of(found)
        if base.gave(found):
            _check_record(found, changes, base)
    except BankError as error:
        raise BankError(f"{folder.file}: {error}; move it away to begin again with the bundle's own classes") from None
    return carried(folder, found, changes, base, embed)


def _check_record(bank: ClassBank, changes: Changes, base: Base) -> None:
    """The digest of a bank file covers names and rows, not what is written beside them."""
    fits = bank.embeddings.shape[1] == base.bank.embeddings.shape[1]
    if not fits or bank.names != names_after(base, changes):
        raise BankError("its classes are not those that its record of changes gives")


def carried(folder: StateFolder, old: ClassBank, changes: Changes, base: Base, embed: Embed) -> Snapshot:
    """Changes to one bundle's bank, made to another's; nothing is written where both have the same bank.

    Raises:
        BankError: a class cannot be carried over, or the new bank cannot be written.
    """
    own, info = changes.own(base), info_after(base, changes)
    try:
        if base.gave(old):  # what the bundle knows of its classes may differ all the same
            return Snapshot(base, changes, old if old.info == info else dataclasses.replace(old, info=info))
        rows = embed([added.phrases for added in own.values()]) if own else ()
        bank = compose(base, changes, dict(zip(own, rows, strict=True)), base.bank)
    except (BankError, ClassNameError) as error:
        raise BankError(
            f"{folder.file}: a class that was added does not suit this bundle: {error}; "
            "serve the bundle it was added to and remove it, or move the file away"
        ) from None
    if not bank.names:
        raise BankError(f"{folder.file}: all classes of this bundle were removed; move the file away to have them back")
    try:
        folder.keep(old)
        folder.save(bank)
    except OSError as error:
        raise BankError(f"{folder.file}: cannot be written for this bundle ({error})") from None
    return Snapshot(base, changes, bank)
