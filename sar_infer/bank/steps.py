"""The history of a bank: steps, each of which sets entries, and undoing and folding them.

The state is the base's entries with the puts of all steps laid over them; the last writer wins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sar_infer.bank.entry import CALIBRATION, LEARNED, MODEL, Entry, Puts, Record
from sar_infer.errors import InputError

UNDO_STEPS = 64
"""Latest steps that can be undone."""
UNDO_RECORDS = 4
"""Latest model, adaptation and calibration that can be undone, each; their arrays are large."""
MOST_STEPS = 1000
"""Steps whose text is stored."""
MOST_TEXT = 500
"""Characters of a step's summary and author, each."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a bank's history.

    Attributes:
        n: Number of the step, from 1.
        at: UTC time in ISO form.
        action: The edit: ``add``, ``remove``, ….
        summary: A description of the change.
        by: The author of the change, such as a command.
        to: The step that a rollback led back to; 0 is the beginning.
        puts: Entries by key; None if the step was taken back, is a rollback, or is too old to be undone.
    """

    n: int
    at: str
    action: str
    summary: str
    by: str = ""
    to: int | None = None
    puts: Puts | None = None

    @property
    def can_undo(self) -> bool:
        """Return True if the step can be taken back."""
        return self.puts is not None


@dataclass(frozen=True, eq=False)
class Log:
    """The steps since a base.

    Attributes:
        steps: The latest steps, the oldest first.
        begun: Number of the latest step that is too old to be undone; 0 if there is none.
        folded: The puts of steps 1 to ``begun``, merged.
    """

    steps: tuple[Step, ...] = ()
    begun: int = 0
    folded: Puts = field(default_factory=dict)

    @property
    def last(self) -> int:
        """Return the number of the latest step."""
        return self.steps[-1].n if self.steps else self.begun

    @property
    def puts(self) -> Puts:
        """Return the puts of all steps, merged."""
        return merged([self.folded, *(step.puts for step in self.steps if step.puts is not None)])

    def with_step(self, step: Step) -> Log:
        """Return the log with one more step, the oldest folded."""
        step = dataclasses.replace(step, summary=step.summary[:MOST_TEXT], by=step.by[:MOST_TEXT])
        steps = [*self.steps, step]
        alive = [number for number, one in enumerate(steps) if one.puts is not None]
        cut = len(steps) - MOST_STEPS  # steps that were rolled back count here, and not among those that can be undone
        fold = max(0, len(alive) - UNDO_STEPS, sum(number < cut for number in alive))
        for key in {MODEL, LEARNED, CALIBRATION}.intersection(step.puts or ()):
            having = [order for order, number in enumerate(alive) if key in (steps[number].puts or ())]
            fold = max(fold, having[-UNDO_RECORDS - 1] + 1 if len(having) > UNDO_RECORDS else 0)
        folded, begun = self.folded, self.begun
        if fold:
            oldest = [steps[number] for number in alive[:fold]]
            folded, begun = merged([folded, *(one.puts or {} for one in oldest)]), oldest[-1].n
            steps = [dataclasses.replace(one, puts=None) if one.n <= begun else one for one in steps]
        return Log(tuple(steps[-MOST_STEPS:]), begun, folded)

    def back(self, to: int) -> Log:
        """Return the log without the puts of the steps after one.

        Raises:
            InputError: There is no such step, another rollback took it back, or it is too old.
        """
        rollbacks = {step.n: step.to for step in self.steps if step.to is not None}
        target = to
        while target in rollbacks:
            target = rollbacks[target]
        if target not in self.line:
            raise InputError(
                f"cannot go back to step {to}: there is none, it was taken back, or it is too old ({UNDO_STEPS} steps "
                f"since the latest carry can be undone, {UNDO_RECORDS} that set a model); go back to one of "
                f"{', '.join(map(str, self.line))}"
            )
        steps = [dataclasses.replace(step, puts=None) if step.n > target else step for step in self.steps]
        return Log(tuple(steps), self.begun, self.folded)

    @property
    def line(self) -> list[int]:
        """Return the numbers of the steps that can be gone back to, the oldest first."""
        return [self.begun, *(step.n for step in self.steps if step.puts is not None)]

    def mapped(self, change: Callable[[str, Entry], Entry]) -> Log:
        """Return the log with each entry of each step changed."""

        def changed(puts: Puts) -> Puts:
            return {key: change(key, item) if isinstance(item, Entry) else item for key, item in puts.items()}

        steps = [
            step if step.puts is None else dataclasses.replace(step, puts=changed(step.puts)) for step in self.steps
        ]
        return Log(tuple(steps), self.begun, changed(self.folded))


def merged(several: Iterable[Puts]) -> dict[str, Entry | Record | None]:
    """Return the puts laid over each other, the last on top."""
    return {key: item for puts in several for key, item in puts.items()}
