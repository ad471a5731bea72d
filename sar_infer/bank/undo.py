"""Going back: a bank as it was after an earlier step of its history."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.groups import Before
from sar_infer.bank.history import UNDO_STEPS, Stack, Step, Undo
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.steps import set_info, utc_now
from sar_infer.errors import BankError, InputError

_UNFIT = "its history does not fit its classes; the file was damaged or changed"


@dataclass(frozen=True)
class _State:
    """The parts of a bank that steps change."""

    names: list[str]
    rows: Floats
    info: Mapping[str, ClassInfo]
    stack: Stack


def rollback(bank: ClassBank, to: int, *, by: str = "") -> ClassBank:
    """The bank as it was after a step, with the rollback itself as one more step; it cannot be undone.

    Args:
        bank: Which bank.
        to: The step's number; 0 is the beginning.
        by: Who or what does it.

    Raises:
        InputError: there is no such step, another rollback took it back, or what undoing takes is not kept any more.
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
        bank, names=state.names, embeddings=state.rows, info=state.info, history=tuple(history), stack=state.stack
    )


def settled(bank: ClassBank) -> ClassBank:
    """The bank with its history as text alone: nothing can be undone, and no row is kept for it."""
    history = tuple(dataclasses.replace(step, undo=None) for step in bank.verified().history)
    return dataclasses.replace(bank, history=history, stack=None)


def _plan(history: tuple[Step, ...], to: int) -> dict[int, Undo]:
    """What to take back by step, the latest first; a rollback stands for the step that it led to."""
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
    """The state before a step."""
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
    _give_back(info, undo.info, names)
    return _State(names, rows, info, stack[:base])


def _put_back(names: list[str], rows: Floats, gone: Stack) -> tuple[list[str], Floats]:
    """Removed classes between the others, at the positions that they had."""
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


def _give_back(info: dict[str, ClassInfo], had: tuple[Before, ...], names: list[str]) -> None:
    """What the classes of a step had, into what is known now; a class is in one group at most."""
    ranges = [(start, stop, group.info) for group in had for start, stop in group.rows]
    if any(not 0 <= start < stop <= len(names) for start, stop, _ in ranges) or (
        sum(stop - start for start, stop, _ in ranges) > len(names)
    ):
        raise BankError(_UNFIT)
    for start, stop, item in ranges:
        for name in names[start:stop]:
            set_info(info, name, item or PLAIN)


def _check_positions(stack: Stack, count: int) -> None:
    """Within the bank, and in its order where they go back between other rows."""
    places = stack.positions
    if places.min() < 0 or places.max() >= count or len(np.unique(places)) != len(places):
        raise BankError(_UNFIT)
