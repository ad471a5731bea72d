"""What was done to a bank, step by step, and what it takes to undo it.

Every step keeps an undo record; rows that a step removed or replaced lie on a stack, the last ones on top, so that
steps can be taken back from the last one on. Positions are those before the step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank.groups import Before
from sar_infer.bank.info import sparse
from sar_infer.storage.packed_names import PackedNames

UNDO_STEPS = 64
"""The latest steps that keep what undoing them takes."""

Action = Literal["add", "remove", "rename", "amend", "merge", "rollback"]


@dataclass(frozen=True)
class Undo:
    """How a step is taken back, in this order.

    Attributes:
        appended: Classes at the end that the step brought; they go.
        removed: Rows on the stack, on top, that go back to their positions.
        replaced: Rows on the stack, below, that take the place of those at their positions.
        renamed: Old name by new name.
        info: What classes had before, which takes the place of what they have.
    """

    appended: int = 0
    removed: int = 0
    replaced: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict)
    info: tuple[Before, ...] = ()

    @property
    def rows(self) -> int:
        """How many it has on the stack."""
        return self.removed + self.replaced


@dataclass(frozen=True)
class Step:
    """One change of a bank.

    Attributes:
        n: Counts from 1.
        at: UTC time in ISO form.
        action: Which edit it was.
        summary: What it did, in words.
        by: Who or what did it, such as a command line.
        to: The step that a rollback led back to; 0 is the beginning.
        undo: None where it cannot be undone any more.
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
    """Rows that steps have removed or replaced, the last ones at the end.

    Attributes:
        names: R names that they had.
        rows: (R, D) float32.
        positions: (R,) int64, where they were.
    """

    names: PackedNames
    rows: Floats
    positions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def empty(cls, dim: int) -> Stack:
        """Without rows, for rows of ``dim`` numbers."""
        return cls(PackedNames.of(()), np.empty((0, dim), np.float32), np.empty(0, np.int64))

    def __getitem__(self, part: slice) -> Stack:
        return Stack(PackedNames.of(self.names[part]), self.rows[part], self.positions[part])

    def pushed(self, *others: Stack) -> Stack:
        """With the rows of others on top."""
        parts = [part for part in (self, *others) if len(part)] or [self]
        if len(parts) == 1:
            return parts[0]
        return Stack(
            PackedNames.chain(part.names for part in parts),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.positions for part in parts]),
        )


def recorded(history: tuple[Step, ...], stack: Stack, step: Step) -> tuple[tuple[Step, ...], Stack]:
    """The history with one more step; steps that are too long ago lose what undoing them takes, and its rows."""
    steps = [*history, step]
    can_undo = [place for place, found in enumerate(steps) if found.undo is not None]
    for place in can_undo[:-UNDO_STEPS]:
        undo = steps[place].undo
        assert undo is not None  # noqa: S101 - chosen above
        stack = stack[undo.rows :]
        steps[place] = dataclasses.replace(steps[place], undo=None)
    return tuple(steps), stack


def step_to_json(step: Step) -> dict[str, Any]:
    """A step as ``strict_json.build`` reads it back."""
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
