"""The classes of a running server: the bank of ``--bank FILE``, which other processes may change too.

A change holds the file's lock, applies a use case of ``sar_infer.bank`` to what is there, and is on disk before it is
confirmed. A look sees every change that was confirmed before it, by any process.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_infer.bank import ClassBank, PhotoSet, Step, add, add_photos, learn, remove, rollback
from sar_infer.bank.edits import Embed, steps_back
from sar_infer.bundle.bank_file import BankFile, Stamp, check_place
from sar_infer.bundle.bundle import Bundle
from sar_infer.class_model.spool import FeatureSpool
from sar_infer.classifier import Classifier
from sar_infer.classify.learning import LearningReport
from sar_infer.errors import BankError, InputError, SarInferError, WriteError
from sar_infer.evaluation import Finding, name_findings, new_photo_findings
from sar_infer.server.bank.snapshot import SEARCHED, Shown, Snapshot
from sar_infer.server.class_names import clean_name, clean_phrases
from sar_infer.server.problems import Problem

_BY = "sar-serve"
_BUSY_SECONDS = 2
"""Seconds after which a change that came between others may be tried again."""
_RETRY_SECONDS = 10.0
"""Time between two looks at a file that cannot be used."""
_log = logging.getLogger("sar_infer.server")


@dataclass(frozen=True)
class Change:
    """The effect of ``put``.

    Attributes:
        created: The class is new.
        etag: The digest of the bank after it.
        entry: The class as it is now.
        repeats: Number of photos that were left out, because they are counted for the class already.
        findings: What is odd about the name or the photos.
        calibrated: The bank's own calibration is of its classes as they are after it; None if it has none.
    """

    created: bool
    etag: str
    entry: Shown
    repeats: int = 0
    findings: tuple[Finding, ...] = ()
    calibrated: bool | None = None


@dataclass(frozen=True)
class NewPhotos:
    """Photos for a class.

    Attributes:
        photos: Digests and embeddings; ``photos_only`` states that the name of the class carries no meaning.
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
        BankError: The file is damaged or belongs to another bundle; SchemaError if it needs a newer reader.
    """

    def __init__(self, file: Path | None, bundle: Bundle, embed: Embed, *, writable: bool = True) -> None:
        if file is not None:
            check_place(file, changeable=writable)
        self._file = None if file is None else BankFile(file, bundle)
        self._bundle, self._embed, self._writable = bundle, embed, writable
        self._changing, self._showing = threading.Lock(), threading.Lock()
        self._failed: tuple[Stamp, float] = None, 0.0
        self.usable = True
        self.snapshot = Snapshot(bundle.bank if self._file is None else self._file.look(), bundle.bank)

    @property
    def bank(self) -> ClassBank:
        """Return the bank at the last look."""
        return self.snapshot.bank

    def look(self) -> Snapshot:
        """Return the classes as they are now, with what other processes have written.

        Of a file that cannot be used the old classes stay, and the log reports it once.
        """
        if self._file is None:
            return self.snapshot
        stamp, (failed, at) = self._file.stamp, self._failed
        if failed == stamp and failed is not None and time.monotonic() - at < _RETRY_SECONDS:
            return self.snapshot
        try:
            self._file.look()
            return self._show(self._file)
        except SarInferError as error:
            if failed != stamp:
                _log.error("the bank file was changed and cannot be used; the old classes stay: %s", error)
            self.usable, self._failed = False, (stamp, time.monotonic())
            return self.snapshot

    def _show(self, file: BankFile) -> Snapshot:
        """Show readers the bank as the file has it by now: a look in another thread may have come between."""
        with self._showing:
            if file.bank is not self.bank:
                self.snapshot = Snapshot(file.bank, self._bundle.bank)
            self.usable, self._failed = True, (None, 0.0)
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
        """Add a class, or embed one anew, or add photos to it, with the meaning of ``sar-bank add``.

        With photos and without phrases, a class that is there keeps its embedding.

        Args:
            name: Its name.
            phrases: Encoded and averaged instead of the name.
            if_match: Content of an If-Match header: digests of the bank, one of which must be the current one; ``*``
                requires that the class exists.
            new: Photos for it.
            only_add: Refuse if the class exists (``precondition-failed``).
            strict: Refuse if there are findings (``conflict``).

        Raises:
            ClassNameError: The name or a phrase cannot be used.
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
        result: list[Change] = []

        def edit(now: Snapshot) -> ClassBank:
            bank, existing = now.bank, now.find(name)
            if only_add and existing is not None:
                raise Problem("precondition-failed", f"class {existing.name!r} exists already")
            if existing is None and (owner := bank.lookup.alias(name)) is not None:
                raise Problem("conflict", f"{name!r} is another name of class {bank.names[owner]!r}")
            if existing is None and new is not None and not new.create:
                raise Problem("not-found", f"only PUT adds a class: {now.missing(name)}")
            spelling = existing.name if existing else name
            photos = {} if new is None else {spelling: new.photos}
            findings: list[Finding] = []
            if existing and new is not None and phrases is None:
                after = add_photos(bank, photos, by=_BY)
            else:
                mine = {spelling: (spelling,) if texts == (name,) else texts}
                if len(bank.names) <= SEARCHED and not (new is not None and new.photos.photos_only):
                    findings += name_findings(bank, self._bundle, mine)
                after = add(bank, mine, self._embed([*mine.values()]), photos, by=_BY)
            counted = 0
            if new is not None:
                counted = len(bank.photos_of(spelling).digest_set & new.photos.digest_set) if existing else 0
                findings += new_photo_findings(after, self._bundle, bank, new.labels)
            if strict and findings:
                raise Problem("conflict", f"nothing was changed (strict): {spelling!r} {findings[0].message}")
            shown = () if after is bank else tuple(findings)
            entry = Shown.of(after.entry(spelling))
            result.append(
                Change(existing is None, after.content_digest, entry, counted, shown, after.calibration_holds)
            )
            return after

        self._changed(edit, if_match, lambda now: now.find(name) is not None)
        return result[0]

    def remove(self, name: str, if_match: str | None = None) -> str:
        """Remove a class, and return the digest of the bank after it.

        Raises:
            ClassNameError: The name cannot be used.
            Problem: ``not-found``, ``conflict`` (the last class but background), ``precondition-failed``,
                ``writes-disabled``, ``not-stored`` or ``overloaded``; nothing was changed.
        """

        def edit(now: Snapshot) -> ClassBank:
            if now.find(name) is None:
                raise Problem("not-found", now.missing(clean_name(name)))
            after = remove(now.bank, [name], by=_BY)
            if not after.can_answer:
                raise Problem("conflict", f"class {name!r} is the last one; add another before you remove it")
            return after

        return self._changed(edit, if_match).etag

    def learn(
        self,
        classifier: Classifier,
        features: FeatureSpool,
        if_match: str | None = None,
        *,
        all_known: bool = False,
        dry_run: bool = False,
    ) -> tuple[LearningReport, str]:
        """Store what photos without labels teach; return the report, and the digest of the bank after it.

        Args:
            classifier: Has embedded them, and learns on the bank as it is by now.
            features: The photos.
            if_match: As in ``put``.
            all_known: Every photo is of one of the classes.
            dry_run: Change nothing.

        Raises:
            InputError: There is no class model.
            Problem: As for ``remove``.
        """
        if classifier.bundle is not self._bundle:
            raise Problem("overloaded", "another bundle has been loaded meanwhile; try again", _BUSY_SECONDS)
        reports: list[LearningReport] = []

        def edit(now: Snapshot) -> ClassBank:
            change, report = classifier.learn(features, bank=now.bank, all_known=all_known)
            reports.append(report)
            return now.bank if dry_run else learn(now.bank, change, by=_BY)

        etag = self._changed(edit, if_match).etag
        return reports[0], etag

    def rollback(
        self, to: int | None = None, steps: int | None = None, if_match: str | None = None, latest: int | None = None
    ) -> tuple[Step | None, Snapshot]:
        """Go back to an earlier step of the history; return the new step, None if nothing was taken back, and the bank.

        Args:
            to: Number of the step; 0 is the beginning.
            steps: Number of steps to take back, instead of ``to``.
            if_match: As in ``put``.
            latest: Number that the latest step must have; the digest is the same again after a change and its opposite.

        Raises:
            InputError: There is no such step, or it cannot be gone back to any more.
            Problem: ``conflict`` (no class but background would be left), ``precondition-failed``,
                ``writes-disabled``, ``not-stored`` or ``overloaded``; nothing was changed.
        """
        if (to is None) == (steps is None):
            raise InputError("expected either to, the number of a step, or steps, how many to take back")
        before: list[ClassBank] = []

        def edit(now: Snapshot) -> ClassBank:
            bank = now.bank
            before.append(bank)
            if latest is not None and latest != bank.log.last:
                raise Problem("precondition-failed", f"step {latest} is not the latest any more; {bank.log.last} is")
            target = steps_back(bank, steps or 0) if to is None else to
            after = rollback(bank, target, by=_BY)
            if after.encoder_digest != bank.encoder_digest:
                raise Problem("conflict", f"step {target} belongs to another bundle; use sar-bank rollback")
            if not after.can_answer:
                raise Problem("conflict", f"as after step {target} no class could be an answer")
            return after

        snapshot = self._changed(edit, if_match)
        return (None if snapshot.bank is before[0] else snapshot.bank.history[-1]), snapshot

    def _changed(
        self,
        edit: Callable[[Snapshot], ClassBank],
        if_match: str | None,
        exists: Callable[[Snapshot], bool] = lambda now: True,
    ) -> Snapshot:
        """Apply an edit to what the file has now, write it, and return the classes after it."""
        with self._owned() as (file, now):
            _check_match(if_match, now.etag, exists(now))
            after = edit(now)
            if after is not now.bank:
                try:
                    file.save(after)
                except OSError as error:
                    message = f"{file.path}: the change cannot be written and was not made ({error})"
                    raise Problem("not-stored", message) from error
            return self._show(file)

    @contextlib.contextmanager
    def _owned(self) -> Iterator[tuple[BankFile, Snapshot]]:
        """Hold the file's lock, and yield the classes that it has now."""
        file = self._file
        if not self._writable or file is None:
            raise Problem("writes-disabled", "this server changes no bank; start it with --bank FILE and SAR_API_KEY")
        with self._changing, contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file.changing())
            except WriteError as error:
                raise Problem("overloaded", str(error), _BUSY_SECONDS) from None
            except BankError as error:
                self.usable = False
                raise Problem(
                    "conflict", f"the bank file was changed by another process and cannot be used: {error}"
                ) from None
            yield file, self._show(file)


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
