"""The history of a bank: what was done to it step by step, and how steps are taken back.

Each step keeps an undo record; rows that a step removed or replaced lie on a stack, the latest on top, so that steps
can be taken back from the last one on. Positions are those before the step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank.info import PLAIN, ClassInfo, Ranges, ranges_by_item, set_info, sparse
from sar_infer.errors import BankError, InputError
from sar_infer.storage.packed_names import PackedNames

if TYPE_CHECKING:
    from sar_infer.bank.class_bank import ClassBank

UNDO_STEPS = 64
"""Number of latest steps that keep their undo records."""
_UNFIT = "its history does not fit its classes; the file was damaged or changed"

Action = Literal["add", "remove", "rename", "amend", "merge", "rollback"]


@dataclass(frozen=True)
class Before:
    """The info that classes had before a step, by their rows at that time; None if they had none."""

    rows: Ranges
    info: ClassInfo | None = None


@dataclass(frozen=True)
class Undo:
    """How a step is taken back, in this order.

    Attributes:
        appended: Number of classes that the step added at the end; they are dropped.
        removed: Number of rows on top of the stack that go back to their positions.
        replaced: Number of rows below those that take the place of the rows at their positions.
        renamed: Old name by new name.
        info: The info that classes had before; it takes the place of what they have.
    """

    appended: int = 0
    removed: int = 0
    replaced: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict)
    info: tuple[Before, ...] = ()

    @property
    def rows(self) -> int:
        """Return the number of rows that the step has on the stack."""
        return self.removed + self.replaced


@dataclass(frozen=True)
class Step:
    """One change of a bank.

    Attributes:
        n: Number of the step, from 1.
        at: UTC time in ISO form.
        action: The edit that was made.
        summary: A description of the change.
        by: The author of the change, such as a command line.
        to: The step that a rollback led back to; 0 is the beginning.
        undo: How to take it back; None if it cannot be undone any more.
    """

    n: int
    at: str
    action: Action
    summary: str
    by: str = ""
    to: int | None = None
    undo: Undo | None = None


@dataclass(frozen=True, eq=False)
class Stack:
    """Rows that steps have removed or replaced, the latest at the end.

    Attributes:
        names: The R names that they had.
        rows: (R, D) float32.
        positions: (R,) int64, the rows' former places in the bank.
    """

    names: PackedNames
    rows: Floats
    positions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def empty(cls, dim: int) -> Stack:
        """Return a stack without rows, for rows of ``dim`` numbers."""
        return cls(PackedNames.of(()), np.empty((0, dim), np.float32), np.empty(0, np.int64))

    def __getitem__(self, part: slice) -> Stack:
        return Stack(PackedNames.of(self.names[part]), self.rows[part], self.positions[part])

    def pushed(self, *others: Stack) -> Stack:
        """Return a stack with the rows of others on top."""
        parts = [part for part in (self, *others) if len(part)] or [self]
        if len(parts) == 1:
            return parts[0]
        return Stack(
            PackedNames.chain(part.names for part in parts),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.positions for part in parts]),
        )


def with_step(
    bank: ClassBank,
    action: Action,
    summary: str,
    by: str,
    undo: Undo,
    *gone: Stack,
    at: str | None = None,
    **changes: object,
) -> ClassBank:
    """Return the bank with changes, one more step of history, and the rows that the step retires on its stack.

    Args:
        bank: The bank before the step.
        action: The edit.
        summary: A description of the change.
        by: The author of the change.
        undo: How to take it back.
        gone: Rows that the step removes or replaces.
        at: UTC time in ISO form; None is now.
        changes: Fields of the bank that change.

    Raises:
        BankError: the file that the bank was loaded from was damaged or changed, or a change is unsound.
    """
    bank.verified()
    step = Step(len(bank.history) + 1, at or utc_now(), action, summary, by, undo=undo)
    history, stack = _recorded(bank.history, bank.retired.pushed(*gone), step)
    return dataclasses.replace(bank, **changes, history=history, stack=stack, file=None)  # type: ignore[arg-type]


def rollback(bank: ClassBank, to: int, *, by: str = "") -> ClassBank:
    """Return the bank as it was after a step; the rollback is one more step of history, and cannot be undone itself.

    Args:
        bank: The bank.
        to: Number of the step; 0 is the beginning.
        by: The author of the change.

    Raises:
        InputError: there is no such step, another rollback took it back, or its undo records are no longer kept.
        BankError: the history does not fit the bank.
    """
    plan = _plan(bank.verified().history, to)
    if not plan:
        return bank
    state = _State(list(bank.names), bank.embeddings, bank.info, bank.retired)
    for undo in plan.values():
        state = _undone(state, undo)
    history = [dataclasses.replace(step, undo=None) if step.n in plan else step for step in bank.history]
    numbers = ", ".join(map(str, plan))
    summary = f"took back step{'s' if len(plan) > 1 else ''} {numbers}; as after step {to}"
    history.append(Step(len(history) + 1, utc_now(), "rollback", summary, by, to=to))
    return dataclasses.replace(
        bank,
        names=state.names,
        embeddings=state.rows,
        info=state.info,
        history=tuple(history),
        stack=state.stack,
        file=None,
    )


def settled(bank: ClassBank) -> ClassBank:
    """Return the bank with its history as text alone: nothing can be undone, and no row is kept for it."""
    history = tuple(dataclasses.replace(step, undo=None) for step in bank.verified().history)
    return dataclasses.replace(bank, history=history, stack=None, file=None)


def before(items: Mapping[int, ClassInfo | None]) -> tuple[Before, ...]:
    """Return the info that classes had, from the info of each row."""
    return tuple(Before(rows, item) for item, rows in ranges_by_item(items).items())


def step_to_json(step: Step) -> dict[str, Any]:
    """Return a step in the form that ``strict_json.build`` reads back."""
    content = sparse(step)
    if step.undo is not None:
        undo = sparse(step.undo)
        if step.undo.info:
            undo["info"] = [
                {"rows": group.rows} | ({} if group.info is None else {"info": sparse(group.info)})
                for group in step.undo.info
            ]
        content["undo"] = undo
    return content


def utc_now() -> str:
    """Return the time in UTC, in ISO form."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _recorded(history: tuple[Step, ...], stack: Stack, step: Step) -> tuple[tuple[Step, ...], Stack]:
    """Return the history with one more step, and the stack; the oldest steps lose their undo records and their rows."""
    steps = [*history, step]
    can_undo = [place for place, found in enumerate(steps) if found.undo is not None]
    for place in can_undo[:-UNDO_STEPS]:
        undo = steps[place].undo
        assert undo is not None  # noqa: S101 - chosen above
        stack = stack[undo.rows :]
        steps[place] = dataclasses.replace(steps[place], undo=None)
    return tuple(steps), stack


@dataclass(frozen=True)
class _State:
    """The parts of a bank that steps change."""

    names: list[str]
    rows: Floats
    info: Mapping[str, ClassInfo]
    stack: Stack


def _plan(history: tuple[Step, ...], to: int) -> dict[int, Undo]:
    """Return what to take back by step, the latest first; a rollback stands for the step that it led to."""
    if not 0 <= to <= len(history):
        raise InputError(f"no step {to}; the history has steps 1 to {len(history)}, and 0 is the beginning")
    plan: dict[int, Undo] = {}
    place = len(history)
    while place > to:
        step = history[place - 1]
        if step.undo is not None:
            plan[place] = step.undo
            place -= 1
        elif step.to is not None and step.to < place:
            place = step.to
            if place < to:
                raise InputError(f"step {to} was taken back by step {step.n}; it cannot be brought back")
        else:
            raise InputError(
                f"step {step.n} cannot be undone any more (undoing is kept for {UNDO_STEPS} steps, and not in a frozen "
                f"bundle); the earliest to go back to is {step.n}"
            )
    return plan


def _undone(state: _State, undo: Undo) -> _State:
    """Return the state before a step."""
    count, stack = len(state.names) - undo.appended, state.stack
    base, below = len(stack) - undo.rows, len(stack) - undo.removed
    if min(count, base) < 0:
        raise BankError(_UNFIT)
    names, rows = _put_back(state.names[:count], state.rows[:count], stack[below:])
    if undo.replaced:
        old = stack[base:below]
        _check_positions(old, len(names))
        rows = rows.copy()
        rows[old.positions] = old.rows
    if undo.renamed:
        names = [undo.renamed.get(name, name) for name in names]
    present = set(names)
    info = {name: item for name, item in state.info.items() if name in present}
    _restore_info(info, undo.info, names)
    return _State(names, rows, info, stack[:base])


def _put_back(names: list[str], rows: Floats, gone: Stack) -> tuple[list[str], Floats]:
    """Return names and rows with removed classes back between the others, at the positions that they had."""
    if not len(gone):
        return names, rows
    total = len(names) + len(gone)
    _check_positions(gone, total)
    back = np.zeros(total, dtype=np.bool_)
    back[gone.positions] = True
    result = np.empty((total, rows.shape[1]), dtype=np.float32)
    result[back], result[~back] = gone.rows, rows
    returning, staying = iter(gone.names), iter(names)
    return [next(returning if here else staying) for here in back.tolist()], result


def _restore_info(info: dict[str, ClassInfo], had: tuple[Before, ...], names: list[str]) -> None:
    """Write the info that classes had before a step into ``info``; a class is in one group at most."""
    ranges = [(start, stop, group.info) for group in had for start, stop in group.rows]
    if any(not 0 <= start < stop <= len(names) for start, stop, _ in ranges) or (
        sum(stop - start for start, stop, _ in ranges) > len(names)
    ):
        raise BankError(_UNFIT)
    for start, stop, item in ranges:
        for name in names[start:stop]:
            set_info(info, name, item or PLAIN)


def _check_positions(stack: Stack, count: int) -> None:
    """Raise BankError if positions are outside a bank of ``count`` classes, or stand twice."""
    places = stack.positions
    if places.min() < 0 or places.max() >= count or len(np.unique(places)) != len(places):
        raise BankError(_UNFIT)
