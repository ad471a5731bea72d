"""Changes of a server's bank: their input, their effect and their refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sar_infer.bank import PhotoSet, Step
from sar_infer.bank_advice import Finding
from sar_infer.server.bank.snapshot import Entry

RefusalCode = Literal["not-found", "precondition-failed", "writes-disabled", "conflict", "not-stored", "overloaded"]


class ChangeRefusedError(Exception):
    """The refusal of a change, before anything is done; ``code`` is one of ``problems``.

    ``not-stored`` means a full or broken disk; ``overloaded`` that another process is changing the file, or that a
    reload came between: the same change may be tried again.
    """

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code


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


@dataclass(frozen=True)
class RollbackResult:
    """The effect of ``rollback``: the step that it is, None if nothing was taken back; and the bank after it."""

    step: Step | None
    classes: int
    etag: str


def check_match(if_match: str | None, etag: str, exists: bool) -> None:
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
        raise ChangeRefusedError("precondition-failed", "no such class; If-Match: * changes one that exists")
    if tags != {"*"} and etag not in {tag.strip('"') for tag in tags}:
        raise ChangeRefusedError("precondition-failed", f"classes were changed in the meantime; they are now {etag}")
