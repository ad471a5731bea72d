"""The bank of a running server: the bank file of ``--bank``, which other processes may change too."""

from __future__ import annotations

import contextlib
import logging
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from sar_infer.bank import ClassBank
from sar_infer.bundle.bank_file import BankFile, Stamp, check_place
from sar_infer.bundle.bundle import Bundle
from sar_infer.errors import BankError, InputError, SarInferError, WriteError
from sar_infer.server.problems import Problem, public

BUSY_SECONDS = 2
"""Seconds after which a change that came between others may be tried again."""
_RETRY_SECONDS = 10.0
"""Time between two looks at a file that cannot be used."""
Edit = Callable[[ClassBank], ClassBank]
"""A use case of ``sar_infer.bank`` with its arguments."""
_log = logging.getLogger("sar_infer.server")


class BankStore:
    """The classes that a server chooses from; looks may come from any thread.

    Args:
        file: The bank file; a missing one is made at the first change. None serves the bundle's bank as it is.
        bundle: The served bundle.
        writable: The file must be one that can be changed; else it must exist.

    Attributes:
        usable: The file could be read at the last look.

    Raises:
        InputError: The file's folder is missing, or the file cannot be changed where it is; not writable, it is
            missing.
        BankError: The file is damaged or belongs to another bundle; SchemaError if it needs a newer reader.
    """

    def __init__(self, file: Path | None, bundle: Bundle, *, writable: bool = True) -> None:
        if file is not None:
            check_place(file, changeable=writable)
            if not writable and not file.exists():
                raise InputError(
                    f"{file}: no such bank file; make it (sar-bank create {shlex.quote(str(file))} --photos FOLDER), "
                    "or start the server with a key, so that the first change makes it"
                )
        self._file = None if file is None else BankFile(file, bundle)
        self._bundle = bundle
        self._failed: tuple[Stamp, float] = None, 0.0
        self.usable = True

    @property
    def bank(self) -> ClassBank:
        """Return the bank at the last look or change."""
        return self._bundle.bank if self._file is None else self._file.bank

    def look(self) -> ClassBank:
        """Return the bank as it is now: a change that was confirmed before this call, by any process, is in it.

        If the file cannot be used, the old classes stay, and the log reports it once.
        """
        if self._file is None:
            return self.bank
        stamp, (failed, at) = self._file.stamp, self._failed
        if failed is None or failed != stamp or time.monotonic() - at >= _RETRY_SECONDS:
            try:
                self._file.look()
                self.usable, self._failed = True, (None, 0.0)
            except SarInferError as error:
                if failed != stamp:
                    _log.error("the bank file was changed and cannot be used; the old classes stay: %s", error)
                self.usable, self._failed = False, (stamp, time.monotonic())
        return self.bank

    def change(self, edit: Edit, if_match: str | None = None, existing: str | None = None) -> ClassBank:
        """Apply an edit to the bank as the file has it now, under its lock; write the result and return it.

        Args:
            edit: What it raises is passed on.
            if_match: Content of an If-Match header: digests of the bank, one of which must be the current one.
            existing: Name of a class that must exist if the header is ``*``.

        Raises:
            Problem: ``conflict`` (the file cannot be used), ``precondition-failed``, ``not-stored`` or ``overloaded``;
                nothing was changed.
        """
        file = cast("BankFile", self._file)  # routes that change classes are refused without one
        with contextlib.ExitStack() as stack:
            try:
                locked, bank = stack.enter_context(file.changing())
            except WriteError:
                raise Problem("overloaded", "another process is changing the bank file", BUSY_SECONDS) from None
            except BankError as error:
                self.usable = False
                reason = f"another process changed the bank file, which cannot be used: {public(error, file.path)}"
                raise Problem("conflict", reason) from None
            self.usable, self._failed = True, (None, 0.0)
            _check_match(if_match, bank, existing)
            after = edit(bank)
            if after is not bank:
                try:
                    file.save(locked, after)
                except OSError as error:
                    reason = f"{file.path.name}: the change cannot be written and was not made ({error.strerror})"
                    _log.error("%s: %s", file.path, error)
                    raise Problem("not-stored", reason) from error
            return after


def _check_match(if_match: str | None, bank: ClassBank, existing: str | None) -> None:
    """Raise ``precondition-failed`` if an If-Match header does not hold (RFC 9110, 13.1.1); weak tags never match."""
    if if_match is None:
        return
    tags = {tag.strip() for tag in if_match.split(",")}
    if tags == {"*"}:
        if existing is not None and bank.lookup.get(existing) is None:
            raise Problem("precondition-failed", "no such class; If-Match: * changes one that exists")
    elif bank.content_digest not in {tag.strip('"') for tag in tags}:
        raise Problem(
            "precondition-failed", f"classes were changed in the meantime; they are now {bank.content_digest}"
        )
