"""What a change of the classes is refused for, before anything is done."""

from __future__ import annotations

from typing import Literal

from sar_infer.bank import ClassInfo
from sar_infer.server.bank.snapshot import Snapshot

Refusal = Literal["not-found", "precondition-failed", "writes-disabled", "conflict", "not-stored"]


class ChangeRefusedError(Exception):
    """A change was not made; ``code`` says why in the words of ``problems``; ``not-stored``: disk full or broken."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_known(snapshot: Snapshot, name: str) -> None:
    """Raise ``not-found`` where there is no class of a name."""
    if snapshot.find(name) is None:
        raise ChangeRefusedError("not-found", f"no class {name if len(name) <= 40 else name[:40] + '…'!r}")


def check_aliases(snapshot: Snapshot, name: str) -> None:
    """Raise ``conflict`` where another class took a name of a class of the bundle while that was away."""
    for alias in snapshot.base.bank.info.get(name, ClassInfo()).aliases:
        if (owner := snapshot.bank.lookup.get(alias)) is not None:
            taken = snapshot.bank.names[owner]
            raise ChangeRefusedError(
                "conflict", f"{name!r} is also called {alias!r}, which is class {taken!r} now; remove that class first"
            )


def check_match(if_match: str | None, etag: str, exists: bool) -> None:
    """Raise ``precondition-failed`` where an If-Match header does not hold: RFC 9110, 13.1.1; a weak tag never matches.

    Args:
        if_match: Its content; None asks for nothing.
        etag: Of the classes now.
        exists: Whether the class that is changed is there, which ``*`` asks for.
    """
    if if_match is None:
        return
    tags = {tag.strip() for tag in if_match.split(",")}
    if not (exists if tags == {"*"} else etag in {tag.strip('"') for tag in tags}):
        raise ChangeRefusedError("precondition-failed", f"classes were changed in the meantime; they are now {etag}")
