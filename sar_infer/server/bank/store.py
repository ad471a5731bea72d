"""The classes of a running server: the bank of ``--bank FILE``, which other processes may change too.

Readers take ``snapshot``; ``look`` sees what others have written. A change holds the file's lock, applies an edit of
``sar_infer.bank`` to what is there, and is on disk before a reader sees it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sar_infer.bank import ClassBank, ClassInfo, PhotoSet, Step, add, learn, remove, rollback
from sar_infer.bank.edits import steps_back
from sar_infer.bank.photos import PhotosByName
from sar_infer.bank.rebase import Embed
from sar_infer.bundle import bank_file
from sar_infer.bundle.bank_file import BankFile, Stamp, stamp_of
from sar_infer.bundle.bundle import Bundle
from sar_infer.classifier import Classifier
from sar_infer.classifiers.learning_report import LearningReport
from sar_infer.classifiers.spool import FeatureSpool
from sar_infer.errors import BankError, InputError, SarInferError, WriteError
from sar_infer.evaluation import Finding, name_findings, new_photo_findings
from sar_infer.server.bank.snapshot import SEARCHED, Entry, Snapshot
from sar_infer.server.class_names import clean_name, clean_phrases
from sar_infer.server.problems import Problem

_BY = "sar-serve"
_BUSY_SECONDS = 2
"""Seconds after which a change that came between others may be tried again."""
_RETRY_SECONDS = 10.0
"""Time between two looks at a file that cannot be used: a bank of a million classes takes a second to read."""
_log = logging.getLogger("sar_infer.server")


@dataclass(frozen=True)
class Change:
    """The effect of ``put``.

    Attributes:
        created: The class is new.
        etag: The digest of the bank after it.
        entry: The class as it is now.
        repeats: Number of photos that were left out, because they are counted for the class already.
        findings: What is odd about the name, its embedding or the photos.
        calibrated: The bank's own calibration is of its classes as they are after it; None if it has none.
    """

    created: bool
    etag: str
    entry: Entry
    repeats: int = 0
    findings: tuple[Finding, ...] = ()
    calibrated: bool | None = None


@dataclass(frozen=True)
class NewPhotos:
    """Photos for a class.

    Attributes:
        photos: What the bank keeps of them; ``photos_only`` says that the name of the class means nothing.
        labels: What the findings call each, by its digest.
        encoder: Digest of the encoder that embedded them.
        create: Add the class if it is not there.
    """

    photos: PhotoSet
    labels: Mapping[bytes, str]
    encoder: str
    create: bool = True


class BankStore:
    """The classes that a server chooses from; safe to share between threads.

    A bank file of another encoder is replayed in memory, and cannot be changed.

    Args:
        file: The bank file; a missing one is made at the first change. None serves the bundle's bank as it is.
        bundle: The served bundle.
        embed: Its name encoder.
        writable: Allow changes. Otherwise nothing is ever written.

    Attributes:
        usable: The file could be read at the last look.
        snapshot: The classes at the last look; read it once for everything that has to agree.

    Raises:
        InputError: The file's folder is missing, or the file cannot be changed where it is.
        BankError: The file is damaged, or no class in it suits the bundle; SchemaError if it needs a newer reader.
    """

    def __init__(self, file: Path | None, bundle: Bundle, embed: Embed, *, writable: bool = True) -> None:
        check = bank_file.check_changeable if writable else bank_file.check_folder
        if file is not None:
            check(file)
        self._file = None if file is None else BankFile(file, bundle, embed)
        self._bundle, self._embed, self._writable = bundle, embed, writable
        self._changing, self._publishing = threading.Lock(), threading.Lock()
        self._failed: tuple[Stamp, float] = None, 0.0
        self.usable = True
        self.snapshot = Snapshot(bundle.bank if self._file is None else self._file.bank, bundle.bank)
        self._tell()

    @property
    def bank(self) -> ClassBank:
        """Return the bank at the last look."""
        return self.snapshot.bank

    def look(self) -> Snapshot:
        """Return the classes as they are now, with what other processes have written.

        Of a file that cannot be used the old classes stay, and the log says so once.
        """
        if self._file is None or not self._file.changed:
            return self.snapshot
        stamp, failed_at = self._failed
        is_same = stamp == stamp_of(self._file.path)
        if is_same and time.monotonic() - failed_at < _RETRY_SECONDS:
            return self.snapshot
        try:
            self._take_up(self._file)
        except SarInferError as error:
            if not is_same:
                _log.error("the bank file was changed and cannot be used; the old classes stay: %s", error)
        return self.snapshot

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
            Problem: ``conflict`` (another name of a class, or findings that are refused),
                ``precondition-failed``, ``not-found``, ``writes-disabled``, ``not-stored`` or ``overloaded``; nothing
                was changed.
        """
        if new is not None and new.encoder != self._bundle.manifest.encoder_digest:
            raise Problem(
                "overloaded", "the bundle was replaced while photos were read; send them again", _BUSY_SECONDS
            )
        name = clean_name(name)
        texts = (name,) if phrases is None else clean_phrases(name, phrases)
        with self._owned() as now:
            existing = now.find(name)
            _check_match(if_match, now.etag, existing is not None)
            if only_add and existing is not None:
                raise Problem("precondition-failed", f"class {existing.name!r} exists already")
            if existing is None and (owner := now.bank.lookup.alias(name)) is not None:
                raise Problem("conflict", f"{name!r} is another name of class {now.bank.names[owner]!r}")
            if existing is None and new is not None and not new.create:
                raise Problem("not-found", f"only PUT adds a class: {now.missing(name)}")
            if existing:
                spelling = now.bank.spelling(name)
            else:
                position = now.base.lookup.name(name)
                spelling = name if position is None else now.base.names[position]
            texts = (spelling,) if texts == (name,) else texts
            photos = {} if new is None else {spelling: new.photos}
            if existing and photos and phrases is None:
                none = np.empty((0, now.bank.dim), np.float32)
                after, findings = add(now.bank, [], none, photos=photos, by=_BY), list[Finding]()
            else:
                after, findings = self._with_phrases(now, existing, spelling, texts, photos)
            counted = 0
            if new is not None:
                counted = len(now.bank.photos_of(spelling).digest_set & new.photos.digest_set) if existing else 0
                findings += new_photo_findings(after, self._bundle, now.bank, new.labels)
            if strict and findings:
                raise Problem("conflict", f"nothing was changed (strict): {spelling!r} {findings[0].message}")
            findings = [] if after is now.bank else findings
            etag, entry = self._commit(now, after).etag, Entry.of(after, spelling)
            return Change(existing is None, etag, entry, counted, tuple(findings), after.calibration_holds)

    def _with_phrases(
        self, now: Snapshot, existing: Entry | None, name: str, phrases: tuple[str, ...], photos: PhotosByName
    ) -> tuple[ClassBank, list[Finding]]:
        """Return the bank with a class that has these phrases and further photos, and findings on its name."""
        plain = phrases == (name,)
        if not photos and existing and (existing.phrases == phrases or (plain and existing.origin == "bundle")):
            return now.bank, []
        info = now.bank.info_of(name) if existing else ClassInfo()
        position = now.base.index.get(name) if plain else None
        findings: list[Finding] = []
        if position is None:
            row, info = self._embed([phrases])[0], dataclasses.replace(info, phrases=() if plain else phrases)
            if len(now.bank.names) <= SEARCHED and not (photos and photos[name].photos_only):
                findings = name_findings(now.bank, self._bundle, {name: phrases})
        else:
            bundled = now.base.info_of(name)
            row = now.base.rows_at([position])[0]
            info = dataclasses.replace(info if existing else bundled, phrases=bundled.phrases)
        try:
            return add(now.bank, [name], row[np.newaxis], {name: info}, photos, by=_BY), findings
        except BankError as error:  # an alias of a class that comes back is another class now
            raise Problem("conflict", f"{error}; remove that class first") from None

    def remove(self, name: str, if_match: str | None = None) -> str:
        """Remove a class, and return the digest of the bank after it.

        Raises:
            ClassNameError: the name cannot be used, or stands for several classes.
            Problem: ``not-found``, ``conflict`` (the last class but background), ``precondition-failed``,
                ``writes-disabled``, ``not-stored`` or ``overloaded``; nothing was changed.
        """
        with self._owned() as now:
            if now.find(name) is None:
                raise Problem("not-found", now.missing(clean_name(name)))
            _check_match(if_match, now.etag, True)
            after = remove(now.bank, [name], by=_BY)
            if not after.can_answer:
                raise Problem("conflict", f"class {name!r} is the last one; add another before you remove it")
            return self._commit(now, after).etag

    def learn(
        self,
        classifier: Classifier,
        features: FeatureSpool,
        if_match: str | None = None,
        *,
        all_known: bool = False,
        dry_run: bool = False,
    ) -> tuple[LearningReport, str]:
        """Keep what photos without labels teach; return the report, and the digest of the bank after it.

        Args:
            classifier: Has embedded them, and learns on the bank as it is by now.
            features: The photos.
            if_match: As in ``put``.
            all_known: Every photo is of one of the classes.
            dry_run: Change nothing.

        Raises:
            InputError: there are no class statistics.
            Problem: as for ``remove``.
        """
        if classifier.bundle is not self._bundle:
            raise Problem("overloaded", "another bundle has been loaded meanwhile; try again", _BUSY_SECONDS)
        with self._owned() as now:
            _check_match(if_match, now.etag, True)
            change, report = classifier.learn(features, bank=now.bank, all_known=all_known)
            after = now.bank if dry_run else learn(now.bank, change, by=_BY)
            return report, self._commit(now, after).etag

    def rollback(
        self, to: int | None = None, steps: int | None = None, if_match: str | None = None, latest: int | None = None
    ) -> tuple[Step | None, Snapshot]:
        """Go back to an earlier step of the history; return the new step, None if nothing was taken back, and the bank.

        Args:
            to: Number of the step; 0 is the beginning.
            steps: Number of steps to take back, in place of ``to``.
            if_match: As in ``put``.
            latest: Number that the latest step must have; the digest is the same again after a change and its opposite.

        Raises:
            InputError: there is no such step, or it cannot be gone back to any more.
            Problem: ``conflict`` (no class but background would be left), ``precondition-failed``,
                ``writes-disabled``, ``not-stored`` or ``overloaded``; nothing was changed.
        """
        if (to is None) == (steps is None):
            raise InputError("expected either to, the number of a step, or steps, how many to take back")
        with self._owned() as now:
            _check_match(if_match, now.etag, True)
            count = len(now.bank.history)
            if latest is not None and latest != count:
                raise Problem("precondition-failed", f"step {latest} is not the latest any more; {count} is")
            target = steps_back(now.bank.log, steps or 0) if to is None else to
            after = rollback(now.bank, target, by=_BY)
            if after is now.bank:
                return None, now
            if not after.can_answer:
                raise Problem("conflict", f"as after step {target} no class could be an answer")
            return after.history[-1], self._commit(now, after)

    @contextlib.contextmanager
    def _owned(self) -> Iterator[Snapshot]:
        """Hold the file's lock, and yield the classes that it has now."""
        file = self._file
        if not self._writable or file is None:
            raise Problem("writes-disabled", "this server changes no bank; start it with --bank FILE and SAR_API_KEY")
        with self._changing, contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file.owned())
            except WriteError as error:
                raise Problem("overloaded", str(error), _BUSY_SECONDS) from None
            try:
                self._take_up(file)
            except SarInferError as error:
                raise Problem(
                    "conflict", f"the bank file was changed by another process and cannot be used: {error}"
                ) from None
            if file.rebased is not None:
                raise Problem("conflict", f"{file.path}: {self._other_encoder(file)}")
            yield self.snapshot

    def _take_up(self, file: BankFile) -> None:
        """Replay what is new in the file; of a file that is gone the classes stay."""
        stamp = stamp_of(file.path)
        try:
            file.look()
        except SarInferError:
            self.usable, self._failed = False, (stamp, time.monotonic())
            raise
        self.usable, self._failed = True, (None, 0.0)
        if file.bank is not self.bank:
            self._publish(file)
            _log.info("bank %s has changed: %d classes", file.path, len(file.bank.names))
            self._tell()

    def _commit(self, now: Snapshot, bank: ClassBank) -> Snapshot:
        """Replace the file, then the snapshot; a bank that is as it was is not written."""
        if bank is now.bank:
            return now
        assert self._file is not None  # noqa: S101 - checked by ``_owned``
        try:
            self._file.save(bank)
        except (OSError, BankError) as error:
            message = f"{self._file.path}: the change cannot be written and was not made ({error})"
            raise Problem("not-stored", message) from error
        return self._publish(self._file)

    def _publish(self, file: BankFile) -> Snapshot:
        """Show readers the bank as it is by now: a look in another thread may have come between."""
        with self._publishing:
            if file.bank is not self.bank:
                self.snapshot = Snapshot(file.bank, self._bundle.bank)
            return self.snapshot

    def _tell(self) -> None:
        """Say in the log what of a file of another encoder could not come along."""
        if self._file is not None and self._file.rebased is not None:
            for line in (self._other_encoder(self._file), *self._file.rebased.left_out):
                _log.warning("%s: %s", self._file.path, line)

    def _other_encoder(self, file: BankFile) -> str:
        command = f"sar-bank rebase {shlex.quote(str(file.path))} --bundle {shlex.quote(str(self._bundle.location))}"
        return f"belongs to another encoder; its changes are replayed in memory, and none is made before: {command}"


def _check_match(if_match: str | None, etag: str, exists: bool) -> None:
    """Raise ``precondition-failed`` if an If-Match header does not hold (RFC 9110, 13.1.1); a weak tag never matches.

    Args:
        if_match: The content of the header; None requires nothing.
        etag: The current tag of the classes.
        exists: The class to be changed exists, which ``*`` requires.
    """
    if if_match is None:
        return
    tags = {tag.strip() for tag in if_match.split(",")}
    if tags == {"*"} and not exists:
        raise Problem("precondition-failed", "no such class; If-Match: * changes one that exists")
    if tags != {"*"} and etag not in {tag.strip('"') for tag in tags}:
        raise Problem("precondition-failed", f"classes were changed in the meantime; they are now {etag}")
