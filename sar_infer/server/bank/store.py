"""The classes of a running server: its bundle's bank, and what was added and removed since, kept in one bank file.

Readers take ``snapshot`` and never wait. Writers take turns; a change is on disk before a reader sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from sar_infer.artefact.bundle import Bundle
from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.errors import BankError
from sar_infer.server.bank.changes import Added, Base, Changes
from sar_infer.server.bank.folder import StateFolder
from sar_infer.server.bank.refusals import ChangeRefusedError, check_aliases, check_known, check_match
from sar_infer.server.bank.resume import Embed, carried, resumed
from sar_infer.server.bank.snapshot import Entry, Floats, Snapshot, bundled, compose, info_after, names_after
from sar_infer.server.class_names import clean_name, clean_phrases
from sar_infer.text.names import name_key


@dataclass(frozen=True)
class Change:
    """What ``put`` did, the digest of the bank after it, and the class as it is now."""

    created: bool
    changed: bool
    etag: str
    entry: Entry


class BankStore:
    """The classes that a server chooses from, safe to share between threads; made by ``open``.

    Attributes:
        snapshot: The classes now. It is replaced as a whole: take it once for all that has to fit together.
    """

    def __init__(self, folder: StateFolder | None, snapshot: Snapshot, embed: Embed) -> None:
        self.snapshot = snapshot
        self._folder = folder
        self._embed = embed
        self._writing = threading.Lock()
        self._successor: BankStore | None = None

    @classmethod
    def open(cls, directory: Path | None, bundle: Bundle, embed: Embed) -> BankStore:
        """Take up the changes kept in a folder; without any, the bundle's bank is served and nothing is written.

        Changes to another bundle's bank are carried over: names are removed from this bundle's and classes encoded
        again. The old file is kept beside the new one, as ``bank-DIGEST.safetensors``.

        Args:
            directory: Folder of the bank file; None takes no changes.
            bundle: The bundle that is served.
            embed: Its encoder.

        Raises:
            InputError: the folder cannot be written, or another server has it.
            BankError: the bank file is damaged, or a class in it cannot be carried over.
            SchemaError: the bank file was written for a newer reader.
        """
        base = Base.of(bundle)
        if directory is None:
            return cls(None, Snapshot(base, Changes(), base.bank), embed)
        folder = StateFolder(directory)
        try:
            return cls(folder, resumed(folder, base, embed), embed)
        except BaseException:
            folder.close()
            raise

    @property
    def bank(self) -> ClassBank:
        """The bank now."""
        return self.snapshot.bank

    @property
    def etag(self) -> str:
        """Digest of the names and rows of the bank now."""
        return self.snapshot.etag

    def put(self, name: str, phrases: Sequence[str] | None = None, if_match: str | None = None) -> Change:
        """Add a class, or give one other phrases; it keeps its place and spelling.

        Nothing is written where the encoder's row stays the same. A name of the bundle without phrases of its own gets
        the bundle's row back.

        Args:
            name: Its name.
            phrases: What is encoded and averaged in place of the name.
            if_match: Content of an If-Match header: digests of the bank, one of which must be the present one; ``*``
                asks that the class exists.

        Raises:
            ClassNameError: the name or a phrase cannot be used.
            ChangeRefusedError: ``conflict`` (another name of a class), ``precondition-failed``, ``writes-disabled`` or
                ``not-stored``; nothing was changed.
        """
        name = clean_name(name)
        wanted = (name,) if phrases is None else clean_phrases(name, phrases)
        with self._writing:
            if self._successor is None:
                return self._put(name, wanted, if_match)
        return self._successor.put(name, phrases, if_match)

    def remove(self, name: str, if_match: str | None = None) -> str:
        """Remove a class; returns the digest of the bank after it.

        Raises:
            ChangeRefusedError: ``not-found``, ``conflict`` (the last class but background), ``precondition-failed``,
                ``writes-disabled`` or ``not-stored``; nothing was changed.
        """
        with self._writing:
            if self._successor is None:
                return self._remove(name, if_match)
        return self._successor.remove(name, if_match)

    def rebased(self, bundle: Bundle, embed: Embed) -> BankStore:
        """The same changes to another bundle's bank, as in ``open``; the last step of an exchange of bundles.

        This store goes on showing what it has, for the requests that began with it; changes sent to it are made in the
        new one, which owns the folder from now on.

        Raises:
            BankError: a class cannot be carried over, or the new bank cannot be written; this store stays in charge.
        """
        base = Base.of(bundle)
        with self._writing:
            if self._successor is None:
                folder, now = self._folder, self.snapshot
                snapshot = Snapshot(base, Changes(), base.bank)
                if folder is not None and now.bank is not now.base.bank:
                    snapshot = carried(folder, now.bank, now.changes, base, embed)
                self._successor = BankStore(folder, snapshot, embed)
                return self._successor
        return self._successor.rebased(bundle, embed)

    def close(self) -> None:
        """Take no more changes, and let another process have the folder; a store that was rebased has none to let."""
        with self._writing:
            if self._folder is not None and self._successor is None:
                self._folder.close()
            self._folder = None

    def _put(self, name: str, wanted: tuple[str, ...], if_match: str | None) -> Change:
        folder, now, key = self._owned(), self.snapshot, name_key(name)
        known, row = now.find(name), now.base.rows.get(key)
        check_match(if_match, now.etag, known is not None)
        spelling = known.name if known else name if row is None else now.base.bank.names[row]
        wanted = (spelling,) if wanted == (name,) else wanted
        plain = wanted == (spelling,)
        if known and (known.phrases == wanted or (plain and known.origin == "bundle")):
            return Change(False, False, now.etag, known)
        if known is None and (owner := now.bank.lookup.alias(name)) is not None:
            raise ChangeRefusedError("conflict", f"{name!r} is another name of class {now.bank.names[owner]!r}")
        if known is None and row is not None:
            check_aliases(now, spelling)
        entry = Entry(spelling, "added", wanted)
        if plain and row is not None:
            entry = bundled(now.base, spelling)
            changes, encoded = now.changes.forgetting(key), {}
        else:
            encoded = {key: self._embed([wanted])[0]}
            if known and np.array_equal(encoded[key], now.bank.embeddings[now.bank.index[known.name]]):
                return Change(False, False, now.etag, known)
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            changes = now.changes.adding(key, Added(spelling, wanted, at))
        return Change(known is None, True, self._commit(folder, changes, encoded), entry)

    def _remove(self, name: str, if_match: str | None) -> str:
        folder, now = self._owned(), self.snapshot
        check_known(now, name)
        check_match(if_match, now.etag, True)
        changes = now.changes.removing(name_key(name), now.base)
        info = info_after(now.base, changes)
        if all(info.get(left, ClassInfo()).background for left in names_after(now.base, changes)):
            raise ChangeRefusedError("conflict", f"class {name!r} is the last one; add another before you remove it")
        return self._commit(folder, changes, {})

    def _owned(self) -> StateFolder:
        if self._folder is None:
            raise ChangeRefusedError("writes-disabled", "this server has no folder for classes; start it with --state")
        return self._folder

    def _commit(self, folder: StateFolder, changes: Changes, encoded: Mapping[str, Floats]) -> str:
        """First the file, then the snapshot."""
        base = self.snapshot.base
        bank = compose(base, changes, encoded, self.snapshot.bank)
        try:
            folder.save(bank)
        except (OSError, BankError) as error:
            message = f"{folder.file}: the change cannot be written and was not made ({error})"
            raise ChangeRefusedError("not-stored", message) from error
        self.snapshot = Snapshot(base, changes, bank)
        return bank.content_digest
