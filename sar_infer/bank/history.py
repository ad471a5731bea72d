"""The history of a bank: what was done to it step by step, and going back to an earlier step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from sar_infer.bank.info import PLAIN
from sar_infer.bank.photos import PhotoSet
from sar_infer.bank.undo import Stack, State, Undo, undone
from sar_infer.errors import InputError
from sar_infer.storage.packed_names import PackedNames

if TYPE_CHECKING:
    from sar_infer.bank.class_bank import ClassBank

UNDO_STEPS = 64
"""Number of latest steps that keep their undo records."""
REMOVED = "removed"
"""Key of a bank's provenance: names of the bundle's own classes that were removed, got another row, or had been added
under another encoder. A bank that follows to another encoder leaves out those that are not there any more."""
RENAMED = "renamed"
"""Key of a bank's provenance: the bundle's names of its own classes that were renamed at run time, by the new names. An
entry stays when its class is removed, so that a rollback finds it."""

Action = Literal["add", "remove", "rename", "amend", "merge", "rollback"]


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


def with_step(
    bank: ClassBank,
    action: Action,
    summary: str,
    by: str,
    undo: Undo,
    *gone: Stack,
    at: str | None = None,
    gone_photos: Sequence[PhotoSet] = (),
    lost: Iterable[str] = (),
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
        gone_photos: Sets of photos that the step removes or replaces, in the order of ``undo.photos``.
        lost: Names of classes that the step removes, or gives another row; the bundle's own are remembered.
        changes: Fields of the bank that change.

    Raises:
        BankError: the file that the bank was loaded from was damaged or changed, or a change is unsound.
    """
    bank.verified()
    known, origins = dict.fromkeys(removed_names(bank)), renamed_names(bank.provenance)
    lost = [origins.get(name, name) for name in lost if bank.info.get(name, PLAIN).added is None]
    own = [name for name in lost if name not in known]
    undo = dataclasses.replace(undo, lost=len(own))
    steps = [*bank.history, Step(len(bank.history) + 1, at or utc_now(), action, summary, by, undo=undo)]
    stack, photo_stack = bank.retired.pushed(*gone), (*bank.photo_stack, *gone_photos)
    can_undo = [(place, step.undo) for place, step in enumerate(steps) if step.undo is not None]
    for place, oldest in can_undo[:-UNDO_STEPS]:  # they lose their undo records, and what these keep
        stack, photo_stack = stack[oldest.rows :], photo_stack[oldest.photo_sets :]
        steps[place] = dataclasses.replace(steps[place], undo=None)
    provenance = remembering(bank.provenance, [*known, *own])
    changes = {"embeddings": bank.rows} | changes
    changes |= {"history": tuple(steps), "stack": stack, "photo_stack": photo_stack, "provenance": provenance}
    return dataclasses.replace(bank, **changes, file=None)  # type: ignore[arg-type]


def removed_names(bank: ClassBank) -> list[str]:
    """Return the names of the bundle's own classes that were removed, or got another row."""
    found = bank.provenance.get(REMOVED, [])
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def remembering(provenance: Mapping[str, Any], removed: Iterable[str]) -> dict[str, Any]:
    """Return provenance with these names as those of the bundle's own classes that were removed; each stands once."""
    names = list(dict.fromkeys(removed))
    return {
        **{key: value for key, value in provenance.items() if key != REMOVED},
        **({REMOVED: names} if names else {}),
    }


def renamed_names(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the bundle's names of its own classes that were renamed, by the names that they have now."""
    found = provenance.get(RENAMED, {})
    known = found.items() if isinstance(found, dict) else ()
    return {name: origin for name, origin in known if isinstance(origin, str)}


def with_new_name(provenance: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return provenance in which one of the bundle's own classes has another name."""
    names = renamed_names(provenance)
    names[new] = names.pop(old, old)
    names = {name: origin for name, origin in names.items() if name != origin}
    return {
        **{key: value for key, value in provenance.items() if key != RENAMED},
        **({RENAMED: names} if names else {}),
    }


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
    names = PackedNames.of(bank.names)
    state = State(names, bank.rows, bank.info, bank.photos, bank.retired, bank.photo_stack)
    provenance = dict(bank.provenance)
    for undo in plan.values():
        state = undone(state, undo)
        for new, old in undo.renamed.items():
            if not undo.replaced and state.info.get(old, PLAIN).added is None:
                provenance = with_new_name(provenance, new, old)
    history = [dataclasses.replace(step, undo=None) if step.n in plan else step for step in bank.history]
    numbers = ", ".join(map(str, plan))
    summary = f"took back step{'s' if len(plan) > 1 else ''} {numbers}; as after step {to}"
    history.append(Step(len(history) + 1, utc_now(), "rollback", summary, by, to=to))
    removed = removed_names(bank)
    return dataclasses.replace(
        bank,
        provenance=remembering(provenance, removed[: max(0, len(removed) - sum(u.lost for u in plan.values()))]),
        names=state.names,
        embeddings=state.rows,  # type: ignore[arg-type]
        info=state.info,
        history=tuple(history),
        photos=state.photos,
        stack=state.stack,
        photo_stack=state.photo_stack,
        file=None,
    )


def steps_back(history: Sequence[Step], steps: int) -> int:
    """Return the number of the step that is this many steps back; steps that were rolled back do not count.

    Raises:
        InputError: there are fewer steps to take back.
    """
    number, left = len(history), steps
    while left and number:
        to = history[number - 1].to
        number, left = (number - 1, left - 1) if to is None else (to, left)
    if left:
        raise InputError(f"cannot go back {steps} steps, there are {steps - left} to take back")
    return number


def settled(bank: ClassBank) -> ClassBank:
    """Return the bank as it is given away: its history is text alone, and of photos only sums and digests are kept.

    It ranks as before, to the bit, and its calibration holds if it held before. Nothing can be undone, and no row of a
    photo is in it.

    Raises:
        BankError: the bank is damaged.
    """
    photos = {name: one.limited(0) for name, one in bank.photos.items()}
    history = tuple(dataclasses.replace(step, undo=None) for step in bank.verified().history)
    provenance = {key: value for key, value in bank.provenance.items() if key not in (REMOVED, RENAMED)}
    given = dataclasses.replace(
        bank,
        embeddings=bank.rows,  # type: ignore[arg-type]
        provenance=provenance,
        history=history,
        stack=None,
        photos=photos,
        photo_stack=(),
        file=None,
    )
    calibration = bank.calibration
    if calibration is not None and calibration.content_digest == bank.content_digest:
        kept = dataclasses.replace(calibration, content_digest=given.content_digest)
        return dataclasses.replace(given, calibration=kept)
    return given


def utc_now() -> str:
    """Return the time in UTC, in ISO form."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
