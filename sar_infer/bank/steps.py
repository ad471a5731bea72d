"""What all edits of a bank share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.history import Action, Stack, Step, Undo, recorded
from sar_infer.bank.info import PLAIN, ClassInfo


def with_step(
    bank: ClassBank, action: Action, summary: str, by: str, undo: Undo, *gone: Stack, **changes: object
) -> ClassBank:
    """The bank with changes, and the rows that they retire on its stack."""
    history, stack = recorded(bank.history, bank.retired.pushed(*gone), next_step(bank, action, summary, by, undo))
    return dataclasses.replace(bank, **changes, history=history, stack=stack)  # type: ignore[arg-type]


def next_step(bank: ClassBank, action: Action, summary: str, by: str, undo: Undo, at: str | None = None) -> Step:
    """The step of history after the bank's last one; only a bank that was checked to the last byte gets one.

    Raises:
        BankError: the file that it was loaded from was damaged or changed.
    """
    bank.verified()
    return Step(len(bank.history) + 1, at or utc_now(), action, summary, by, undo=undo)


def set_info(info: dict[str, ClassInfo], name: str, item: ClassInfo) -> None:
    """Sparse: what is plain is left out."""
    info.pop(name, None)
    if item != PLAIN:
        info[name] = item


def listed(names: Sequence[str]) -> str:
    """Few names in words, many as a number."""
    return ", ".join(map(repr, names)) if len(names) <= 3 else f"{len(names):,} classes"


def utc_now() -> str:
    """UTC in ISO form."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
