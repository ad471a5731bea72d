"""The errors that `sar_infer` raises on purpose; each message is one line that can be shown to a user as it is.

::

    SarInferError
    ├── InputError             an argument cannot be used
    │   ├── ImageError         one image: not an image, truncated, too large, too thin, unreadable
    │   ├── ClassFileError     a class file: missing, empty, binary, a bad line
    │   └── ClassNameError     one class name: empty, too long
    │       └── AliasError     of a class to add: an alias of another one
    ├── BundleError            a bundle: missing, damaged, inconsistent
    │   └── SchemaError        written by a version that this reader does not know
    ├── BankError              a bank file: damaged, or of another encoder
    │   └── BaseMissingError   the bundle that it is a change of is not where it was
    ├── WriteError             something could not be written; the old content is still there
    ├── DeviceError            the device asked for is not available
    └── ServerError            a server refused a request, or cannot be reached
"""

from __future__ import annotations

import contextlib
from collections import abc
from typing import Literal

_LONGEST = 1000


def install(extras: str, packages: str = "") -> str:
    """Return the command that installs extras and other packages from a clone; no index has sar-clip."""
    return f"pip install '.[{extras}]'{packages and ' '}{packages} in a clone of sar-clip"


class SarInferError(Exception):
    """Base of all errors of this package; catch it to handle everything that the package refuses."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class InputError(SarInferError):
    """An argument cannot be used."""


class ImageError(InputError):
    """One image cannot be read, decoded or accepted; other images are not affected.

    ``kind`` names the cause for programs: ``format`` = not an accepted format, ``size`` = too large, too thin or empty,
    ``unreadable`` = anything else.
    """

    def __init__(self, message: str, kind: Literal["format", "size", "unreadable"] = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


class ClassFileError(InputError):
    """A class file cannot be used; the message names the file and, if one line is at fault, the line."""


class ClassNameError(InputError):
    """One class name is empty or does not fit the text encoder."""


class AliasError(ClassNameError):
    """A class to add has a name that is an alias of another one."""


class BundleError(SarInferError):
    """A bundle is missing, damaged or inconsistent."""


class SchemaError(BundleError):
    """A bundle or bank has a schema that this version does not read; the message says which version does."""


class BankError(SarInferError):
    """A bank file is damaged or belongs to another encoder."""


class BaseMissingError(BankError):
    """The base that a bank file names, the bank of a bundle, is not where it was."""


class WriteError(SarInferError):
    """Something could not be written; the old content is still there."""


class DeviceError(SarInferError):
    """The device that was asked for is not available on this machine."""


class ServerError(SarInferError):
    """A server refused a request, did not answer, or gave an answer that is not from ``sar-serve``.

    Attributes:
        detail: The reason in one sentence, in the server's words if it gave any.
        status: The HTTP status; None if no answer came.
        code: Stable, for programs: the server's own (``overloaded``, ``bad-class-name``, …), ``http-STATUS`` if it
            gave none, or the client's ``unreachable``, ``timeout``, ``unreadable-answer``.
        request_id: The identifier of the request in the server's log.
    """

    def __init__(self, detail: str, status: int | None, code: str, request_id: str | None = None) -> None:
        super().__init__(detail, status, code, request_id)
        self.detail = detail
        self.status = status
        self.code = code
        self.request_id = request_id

    def __str__(self) -> str:
        details = (self.status, self.code, self.request_id and f"request {self.request_id}")
        return f"{self.detail} ({', '.join(str(item) for item in details if item)})"


def one_line(text: str, longest: int | None = _LONGEST) -> str:
    """Return any text as one line for a terminal: unprintable characters are escaped, and a long text is cut.

    Everything that this package writes to a terminal and that may name a file or a class goes through here: such a name
    may hold control sequences, which a terminal would obey.

    Args:
        text: Any text.
        longest: The most characters; None cuts nothing.
    """
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 1]}…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def reason_of(error: BaseException) -> str:
    """Return the reason that an error gives, on one line, for the end of a message."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())[:300]


@contextlib.contextmanager
def raised_as(
    kind: type[SarInferError], task: str, caught: type[Exception] | tuple[type[Exception], ...] = Exception
) -> abc.Iterator[None]:
    """Raise errors of the block as one of this package, ``TASK: REASON``; those that are one already pass.

    Args:
        kind: The error to raise.
        task: What failed, such as ``photo.tar: cannot be read``.
        caught: What is turned into it; storage and pyarrow raise almost anything.
    """
    try:
        yield
    except SarInferError:
        raise
    except caught as error:
        raise kind(f"{task}: {reason_of(error)}") from None
