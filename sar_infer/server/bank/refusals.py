"""The reasons for which a change of the classes is refused before anything is done."""

from __future__ import annotations

from typing import Literal

from sar_infer.bank import ClassInfo
from sar_infer.server.bank.snapshot import Snapshot

Refusal = Literal["not-found", "precondition-failed", "writes-disabled", "conflict", "not-stored"]


class ChangeRefusedError(Exception):
    """The refusal of a change; ``code`` is one of ``problems``. ``not-stored`` means a full or broken disk."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_known(snapshot: Snapshot, name: str) -> None:
    """Raise ``not-found`` if no class has the name."""
    if snapshot.find(name) is None:
        raise ChangeRefusedError("not-found", f"no class {name if len(name) <= 40 else name[:40] + '…'!r}")


def check_aliases(snapshot: Snapshot, name: str) -> None:
    """Raise ``conflict`` if an alias of a removed class of the bundle is now the name of another class."""
    for alias in snapshot.base.bank.info.get(name, ClassInfo()).aliases:
        if (owner := snapshot.bank.lookup.get(alias)) is not None:
            taken = snapshot.bank.names[owner]
            raise ChangeRefusedError(
                "conflict", f"{name!r} is also called {alias!r}, which is class {taken!r} now; remove that class first"
            )


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
    if not (exists if tags == {"*"} else etag in {tag.strip('"') for tag in tags}):
        raise ChangeRefusedError("precondition-failed", f"classes were changed in the meantime; they are now {etag}")
