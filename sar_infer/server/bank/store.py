"""The classes of a running server: the bank of ``--bank FILE``, which other processes may change too.

Readers take ``snapshot`` and never wait. A change holds the file's lock: it takes up what others have written, applies
an edit of ``sar_infer.bank``, and is on disk before a reader sees it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank, ClassInfo, add, remove, rollback
from sar_infer.bank.edits import listed
from sar_infer.bank.following import Embed
from sar_infer.bank.history import removed_names, renamed_names, steps_back
from sar_infer.bank_advice import Finding, Linter, photo_findings
from sar_infer.bundle import bank_file
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import BANK
from sar_infer.errors import BankError, InputError, SarInferError, WriteError
from sar_infer.server.bank.changes import Change, ChangeRefusedError, NewPhotos, RollbackResult, check_match
from sar_infer.server.bank.snapshot import Entry, Snapshot
from sar_infer.server.class_names import clean_name, clean_phrases
from sar_infer.storage.files import owned
from sar_infer.text.names import Phrases

_BY = "sar-serve"
_RETRY_SECONDS = 10.0
"""Time between two looks at a file that cannot be used: a bank of a million classes takes a second to read."""
_SEARCHED = 10_000
"""The most classes with which a new name is compared while its request waits."""
_Stamp = tuple[int, int, int] | None
_log = logging.getLogger("sar_infer.server")


class BankStore:
    """The classes that a server chooses from; made by ``open``, and safe to share between threads.

    Attributes:
        snapshot: The current classes. It is replaced as a whole: read it once for everything that has to agree.
        usable: The file could be read at the last look.
    """

    def __init__(
        self,
        file: Path | None,
        bundle: Bundle,
        bank: ClassBank,
        embed: Embed,
        *,
        writable: bool = False,
        looked: _Stamp = None,
    ) -> None:
        self._file = self._locked = file
        self._bundle = bundle
        self._embed = embed
        self._writable = writable
        self._changing = threading.Lock()
        self._looked = looked
        self.usable = True
        self._tried = 0.0
        self._seen = None if bank is bundle.bank else bank_file.digests_of(bank)
        self.snapshot = Snapshot(bank, bundle.bank)

    @classmethod
    def open(cls, file: Path | None, bundle: Bundle, embed: Embed, *, writable: bool = True) -> BankStore:
        """Open a bank file for a bundle; see ``bank_file.taken_up`` for one of another encoder.

        Args:
            file: The bank file; a missing one is made at the first change. None serves the bundle's bank as it is.
            bundle: The served bundle.
            embed: Its name encoder.
            writable: Allow changes. Otherwise nothing is ever written.

        Raises:
            InputError: its folder is missing, or the file cannot be changed where it is.
            BankError: the file is damaged, or a class in it does not suit the bundle; SchemaError if it needs a newer
                reader.
            WriteError: the file follows to the bundle's encoder, and cannot be written.
        """
        if file is None:
            return cls(None, bundle, bundle.bank, embed)
        if writable:
            bank_file.check_changeable(file)
        else:
            bank_file.check_folder(file)
        looked = _stamp(file)
        bank = bank_file.taken_up(file, bundle, embed, write=writable, by=_BY)
        store = cls(file, bundle, bank, embed, writable=writable, looked=looked)
        if writable:
            store._warm()
        return store

    @property
    def bank(self) -> ClassBank:
        """Return the current bank."""
        return self.snapshot.bank

    @property
    def etag(self) -> str:
        """Return the digest of the names and rows of the current bank."""
        return self.snapshot.etag

    def put(
        self,
        name: str,
        phrases: Sequence[str] | None = None,
        if_match: str | None = None,
        new: NewPhotos | None = None,
        only_add: bool = False,
        strict: bool = False,
    ) -> Change:
        """Add a class, or change the phrases of one, which keeps its place, spelling, aliases and threshold.

        A name of the bundle that comes without phrases gets the bundle's row back. Nothing is written if the class is
        there already. Photos are added to those that the class has; with photos and without phrases it keeps its row.

        Args:
            name: Its name.
            phrases: Encoded and averaged in place of the name.
            if_match: Content of an If-Match header: digests of the bank, one of which must be the current one; ``*``
                requires that the class exists.
            new: Photos for it.
            only_add: Refuse if the class exists (``precondition-failed``).
            strict: Refuse if there are findings (``conflict``).

        Raises:
            ClassNameError: the name or a phrase cannot be used.
            ChangeRefusedError: ``conflict`` (another name of a class, or findings that are refused),
                ``precondition-failed``, ``not-found``, ``writes-disabled``, ``not-stored`` or ``overloaded``; nothing
                was changed.
        """
        if new is not None and new.encoder != self._bundle.manifest.encoder_digest:
            raise ChangeRefusedError("overloaded", "the bundle was replaced while photos were read; send them again")
        name = clean_name(name)
        wanted = (name,) if phrases is None else clean_phrases(name, phrases)
        with self._owned() as now:
            known = now.find(name)
            check_match(if_match, now.etag, known is not None)
            if only_add and known is not None:
                raise ChangeRefusedError("precondition-failed", f"class {known.name!r} exists already")
            if known is None and (owner := now.bank.lookup.alias(name)) is not None:
                raise ChangeRefusedError("conflict", f"{name!r} is another name of class {now.bank.names[owner]!r}")
            if known is None and new is not None and not new.create:
                raise ChangeRefusedError("not-found", f"no class {name!r:.80}; PUT adds it")
            spelling = now.bank.names[now.bank.lookup.find(name)] if known else _spelling(now.base, name)
            if known and new is not None and phrases is None:
                none = np.empty((0, now.bank.embeddings.shape[1]), np.float32)
                after = add(now.bank, [], none, photos={spelling: new.photos}, by=_BY)
                return self._put(now, known, spelling, after, new, [], strict)
            wanted = (spelling,) if wanted == (name,) else wanted
            plain = wanted == (spelling,)
            if new is None and known and (known.phrases == wanted or (plain and known.origin == "bundle")):
                return Change(False, now.etag, known)
            info = now.bank.info.get(spelling, ClassInfo())
            own = now.base.index.get(spelling) if plain else None
            odd: list[Finding] = []
            if own is None:
                row, info = self._embed([wanted])[0], dataclasses.replace(info, phrases=() if plain else wanted)
                if new is None or not new.photos.photos_only:
                    odd = self._odd_name(now.bank, {spelling: wanted}, row)
            else:
                has = now.base.info.get(spelling, ClassInfo())
                row = now.base.embeddings[own]
                info = dataclasses.replace(info if known else has, phrases=has.phrases)
            try:
                photos = {} if new is None else {spelling: new.photos}
                after = add(now.bank, [spelling], row[np.newaxis], {spelling: info}, photos, by=_BY)
            except BankError as error:  # an alias of a class that comes back is another class now
                raise ChangeRefusedError("conflict", f"{error}; remove that class first") from None
            return self._put(now, known, spelling, after, new, odd, strict)

    def _odd_name(self, bank: ClassBank, phrases: Phrases, row: Floats) -> list[Finding]:
        """Return warnings about a new name with its unit row (D,); none for a large bank, where that takes seconds."""
        if len(bank.names) > _SEARCHED:
            return []
        linter = Linter(self._bundle, bank)
        found = [*linter.texts(phrases), *linter.near(phrases, row[np.newaxis])]
        return [finding for finding in found if finding.severity == "warning"]

    def _put(
        self,
        now: Snapshot,
        known: Entry | None,
        name: str,
        after: ClassBank,
        new: NewPhotos | None,
        findings: list[Finding],
        strict: bool,
    ) -> Change:
        """Write the bank with a class that was put, after a look at its photos."""
        counted = 0
        if new is not None:
            had = now.bank.photos.get(name)
            counted = 0 if had is None else len(had.known & new.photos.known)
            findings = [*findings, *photo_findings(after, self._bundle, now.bank, new.places)]
        if strict and findings:
            raise ChangeRefusedError("conflict", f"nothing was changed (strict): {name!r} {findings[0].message}")
        if after is now.bank and known:
            return Change(False, now.etag, known, counted)
        committed = self._commit(after)
        entry = committed.find(name)
        assert entry is not None  # noqa: S101 - it was just added
        return Change(known is None, committed.etag, entry, counted, tuple(findings))

    def remove(self, name: str, if_match: str | None = None) -> str:
        """Remove a class, and return the digest of the bank after it.

        Raises:
            ClassNameError: the name cannot be used, or stands for several classes.
            ChangeRefusedError: ``not-found``, ``conflict`` (the last class but background), ``precondition-failed``,
                ``writes-disabled``, ``not-stored`` or ``overloaded``; nothing was changed.
        """
        with self._owned() as now:
            if now.find(name) is None:
                raise ChangeRefusedError("not-found", f"no class {clean_name(name)!r:.80}")
            check_match(if_match, now.etag, True)
            after = remove(now.bank, [name], by=_BY)
            if not _answers(after):
                raise ChangeRefusedError(
                    "conflict", f"class {name!r} is the last one; add another before you remove it"
                )
            return self._commit(after).etag

    def rollback(
        self, to: int | None = None, steps: int | None = None, if_match: str | None = None, latest: int | None = None
    ) -> RollbackResult:
        """Go back to an earlier step of the history.

        Args:
            to: Number of the step; 0 is the beginning.
            steps: Number of steps to take back, in place of ``to``.
            if_match: As in ``put``.
            latest: Number that the latest step must have; the digest is the same again after a change and its opposite.

        Raises:
            InputError: there is no such step, or it cannot be gone back to any more.
            ChangeRefusedError: ``conflict`` (no class but background would be left), ``precondition-failed``,
                ``writes-disabled``, ``not-stored`` or ``overloaded``; nothing was changed.
        """
        if (to is None) == (steps is None):
            raise InputError("expected either to, the number of a step, or steps, how many to take back")
        with self._owned() as now:
            check_match(if_match, now.etag, True)
            count = len(now.bank.history)
            if latest is not None and latest != count:
                raise ChangeRefusedError("precondition-failed", f"step {latest} is not the latest any more; {count} is")
            target = steps_back(now.bank.history, steps or 0) if to is None else to
            after = rollback(now.bank, target, by=_BY)
            if after is now.bank:
                return RollbackResult(None, len(after.names), now.etag)
            if not _answers(after):
                raise ChangeRefusedError("conflict", f"as after step {target} no class could be an answer")
            committed = self._commit(after)
            return RollbackResult(after.history[-1], len(after.names), committed.etag)

    def has_changed(self) -> bool:
        """Return True if another process has replaced the file since the last look, or a failed look is due again."""
        if self._file is None:
            return False
        due = not self.usable and time.monotonic() - self._tried >= _RETRY_SECONDS
        return due or _stamp(self._file) != self._looked

    def refresh(self) -> None:
        """Take up what another process has written; a file that cannot be used is logged, and the old classes stay."""
        with self._changing:
            told = self._file and not self.usable and _stamp(self._file) == self._looked
            try:
                self._take_up(self._file)
            except SarInferError as error:
                if not told:
                    _log.error("the bank file was changed and cannot be used; the old classes stay: %s", error)

    @contextlib.contextmanager
    def _owned(self) -> Iterator[Snapshot]:
        """Hold the file's lock, and yield the classes that it has now."""
        if not self._writable or self._file is None:
            raise ChangeRefusedError(
                "writes-disabled", "this server changes no bank; start it with --bank FILE and SAR_API_KEY"
            )
        with self._changing, contextlib.ExitStack() as stack:
            try:
                self._locked = stack.enter_context(owned(self._file, bank_file.WAIT))
            except WriteError as error:
                raise ChangeRefusedError("overloaded", str(error)) from None
            try:
                self._take_up(self._locked)
            except SarInferError as error:
                raise ChangeRefusedError(
                    "conflict", f"the bank file was changed by another process and cannot be used: {error}"
                ) from None
            yield self.snapshot

    def _take_up(self, file: Path | None) -> None:
        """Read a file if it is not what is served; of a file that is gone the classes stay."""
        assert file is not None  # noqa: S101 - checked by the callers
        self.usable, self._looked, self._tried = False, _stamp(file), time.monotonic()
        if self._looked is not None and not (self._seen and bank_file.digests(file) == self._seen):
            if self._writable:
                bank = bank_file.read(file, self._bundle)
            else:  # as at the start: one of another encoder follows in memory
                bank = bank_file.taken_up(file, self._bundle, self._embed, write=False, by=_BY)
            self._publish(bank)
            self._seen = bank_file.digests_of(bank)
            _log.info("bank %s has changed and was read again: %d classes", self._file, len(bank.names))
        self.usable = True

    def _commit(self, bank: ClassBank) -> Snapshot:
        """Replace the file that is locked, then the snapshot; a large bank is mapped from the file again."""
        file = self._locked
        assert file is not None  # noqa: S101 - checked by ``_owned``
        try:
            bank = bank.saved(file)
        except (OSError, BankError) as error:
            message = f"{self._file}: the change cannot be written and was not made ({error})"
            raise ChangeRefusedError("not-stored", message) from error
        self._looked, self._seen = _stamp(file), bank_file.digests(file)
        return self._publish(bank)

    def _publish(self, bank: ClassBank) -> Snapshot:
        snapshot = Snapshot(bank, self._bundle.bank)
        _ = snapshot.added, snapshot.removed, bank.lookup  # in this thread, not when a request asks for them
        self.snapshot = snapshot
        return snapshot

    def _warm(self) -> None:
        """Prepare the first answers, and say what a new bundle of the same encoder has and the file does not."""
        bank = self._publish(self.bank).bank
        gone = {*removed_names(bank), *renamed_names(bank.provenance).values()}
        lacking = [name for name in self.snapshot.removed if name not in gone]
        if lacking:
            _log.warning(
                "%s has not all classes of the bundle, it lacks %s; sar-bank merge FILE %s adds them",
                self._file,
                listed(lacking),
                self._bundle.path / BANK,
            )


def _answers(bank: ClassBank) -> bool:
    """Return True if a class is left that can be an answer."""
    return bool(len(bank.names)) and not (bank.background is not None and bank.background.all())


def _spelling(base: ClassBank, name: str) -> str:
    """Return the bundle's spelling of a name that it has."""
    row = base.lookup.name(name)
    return name if row is None else base.names[row]


def _stamp(file: Path | None) -> _Stamp:
    """Return what changes whenever a file is replaced; None if it is not there."""
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)
