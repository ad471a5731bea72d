"""The kinds of change of a bank, each with its rule, and the log that they make up.

A change names classes, never positions or slots, so that it means the same on another base. A rule is total: a class
that is not there is left out, and an alias that is the name of another class gives way to it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank.calibration import BankCalibration
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.learned import FittedTensors, Learned
from sar_infer.bank.photos import PhotoSet
from sar_infer.bank.state import Draft
from sar_infer.bank.table import Block
from sar_infer.errors import BankError
from sar_infer.text.names import name_key

Action = Literal["add", "remove", "rename", "amend", "merge", "rollback", "calibrate", "fit", "learn", "checkpoint"]
UNDO_STEPS = 64
"""Number of latest steps that can be undone."""


@dataclass(frozen=True, eq=False)
class Add:
    """Classes with their rows: new ones at the end, others in their position.

    Attributes:
        names: N names.
        rows: (N, D) float32, unit rows.
        info: All that is known of them, by their number among the N.
        exact: Names that differ from others in case or space alone are other classes.
    """

    kind: ClassVar[str] = "add"
    names: Sequence[str]
    rows: Floats
    info: Mapping[int, ClassInfo] = field(default_factory=dict)
    exact: bool = False

    def apply(self, draft: Draft) -> None:
        """Add the classes to a draft."""
        slots = [self._slot(draft, name) for name in self.names]
        fresh = [number for number, slot in enumerate(slots) if slot is None]
        for number, slot in enumerate(slots):
            if slot is not None:
                draft.replace(slot, self.rows[number])
        if fresh:
            whole = len(fresh) == len(self.names)
            rows = self.rows if whole else self.rows[fresh]
            names = self.names if whole else [self.names[number] for number in fresh]
            for number, slot in zip(fresh, draft.append(Block(tuple(names), rows)), strict=True):
                slots[number] = slot
        aliases: dict[int, tuple[str, ...]] = {}
        new = set(fresh)
        for number, slot in enumerate(slots):
            assert slot is not None  # noqa: S101 - it was just appended
            item = self.info.get(number, PLAIN)
            if item is PLAIN and number in new:
                continue
            draft.set_info(slot, item)
            if item.aliases or draft.info(slot).aliases:
                aliases[slot] = item.aliases
        if aliases:
            draft.set_aliases(aliases)

    def _slot(self, draft: Draft, name: str) -> int | None:
        slot = draft.slot(name)
        return None if slot is None or (self.exact and draft.table.name(slot) != name) else slot


@dataclass(frozen=True)
class Remove:
    """Classes that go, with all that is known of them."""

    kind: ClassVar[str] = "remove"
    names: tuple[str, ...]

    def apply(self, draft: Draft) -> None:
        """Remove the classes from a draft."""
        for slot in {slot for name in self.names if (slot := draft.slot(name)) is not None}:
            draft.remove(slot)


@dataclass(frozen=True)
class Rename:
    """A class with another name; it keeps its row, and the phrases that this was made from."""

    kind: ClassVar[str] = "rename"
    old: str
    new: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes that it is about."""
        return (self.old,)

    def apply(self, draft: Draft) -> None:
        """Rename the class in a draft, unless another one has the name."""
        slot, owner = draft.slot(self.old), draft.slot(self.new)
        if slot is None or owner not in (None, slot):
            return
        item, name = draft.info(slot), draft.table.name(slot)
        phrases = item.phrases or (name,)
        draft.set_aliases({slot: [alias for alias in item.aliases if name_key(alias) != name_key(self.new)]})
        draft.rename(slot, self.new)
        draft.set_info(slot, dataclasses.replace(item, phrases=() if phrases == (self.new,) else phrases))


@dataclass(frozen=True)
class Alias:
    """All aliases of some classes, by name."""

    kind: ClassVar[str] = "alias"
    aliases: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes that it is about."""
        return (*self.aliases,)

    def apply(self, draft: Draft) -> None:
        """Set the aliases in a draft."""
        slots = {name: slot for name in self.aliases if (slot := draft.slot(name)) is not None}
        draft.set_aliases({slot: self.aliases[name] for name, slot in slots.items()})


@dataclass(frozen=True)
class Settings:
    """Settings of a class; a field that is None stays as it is."""

    threshold: float | None = None
    no_threshold: bool | None = None
    background: bool | None = None
    photos_only: bool | None = None


@dataclass(frozen=True)
class Set:
    """Threshold, background and photos only of some classes, by name."""

    kind: ClassVar[str] = "set"
    settings: Mapping[str, Settings]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes that it is about."""
        return (*self.settings,)

    def apply(self, draft: Draft) -> None:
        """Set them in a draft."""
        for name, settings in self.settings.items():
            slot = draft.slot(name)
            if slot is None:
                continue
            item = draft.info(slot)
            threshold = item.threshold if settings.threshold is None else settings.threshold
            background = item.background if settings.background is None else settings.background
            threshold = None if settings.no_threshold else threshold
            draft.set_info(slot, dataclasses.replace(item, threshold=threshold, background=background))
            if settings.photos_only is not None:
                draft.set_photos(slot, draft.photos(slot).with_photos_only(settings.photos_only))


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos that join those of classes, by name."""

    kind: ClassVar[str] = "photos"
    sets: Mapping[str, PhotoSet]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes that it is about."""
        return (*self.sets,)

    def apply(self, draft: Draft) -> None:
        """Add the photos to a draft."""
        for name, photos in self.sets.items():
            slot = draft.slot(name)
            if slot is not None:
                draft.add_photos(slot, photos)


@dataclass(frozen=True)
class Forget:
    """Photos of a class that go, by their digests; None are all of them, and that its name means nothing."""

    kind: ClassVar[str] = "forget"
    name: str
    digests: tuple[bytes, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes that it is about."""
        return (self.name,)

    def apply(self, draft: Draft) -> None:
        """Remove the photos from a draft."""
        slot = draft.slot(self.name)
        if slot is not None and self.digests is None:
            draft.set_photos(slot, PhotoSet.none(draft.table.dim))
        elif slot is not None and self.digests is not None:
            draft.remove_photos(slot, self.digests)


@dataclass(frozen=True)
class Calibrate:
    """The calibration of the state before it."""

    kind: ClassVar[str] = "calibrate"
    names: ClassVar[tuple[str, ...]] = ()
    calibration: BankCalibration

    def apply(self, draft: Draft) -> None:
        """Set the calibration of a draft."""
        draft.calibration = self.calibration


@dataclass(frozen=True, eq=False)
class Fit:
    """Class statistics that were fitted on the bank's own rows; without tensors there are none any more.

    Attributes:
        tensors: What ``Statistics.tensors`` returns; the bank keeps it and reads none of it.
    """

    kind: ClassVar[str] = "fit"
    names: ClassVar[tuple[str, ...]] = ()
    tensors: FittedTensors

    def apply(self, draft: Draft) -> None:
        """Set the statistics of a draft; what was learned with earlier ones is stale."""
        draft.fit(self.tensors)


@dataclass(frozen=True, eq=False)
class Learn:
    """What photos without labels taught, in place of what was learned before; without names and photos it clears it.

    Attributes:
        names: K class names.
        sums: (K, D) float32, weighted sums of the unit rows of images.
        counts: (K,) float64, weighted counts of images, 0 or more.
        translation: (D,) float32, what is added to the row of an image.
        numbers: Further numbers, such as a temperature; the bank reads none of them.
        photos: Number of photos that were looked at.
        stale: It is of other classes or statistics than those at this step, as a fold finds it.

    Raises:
        BankError: Shapes do not fit each other, a number is not finite, or a count is below 0.
    """

    kind: ClassVar[str] = "learn"
    names: tuple[str, ...]
    sums: Floats
    counts: npt.NDArray[np.float64]
    translation: Floats
    numbers: Mapping[str, float] = field(default_factory=dict)
    photos: int = 0
    stale: bool = False

    def __post_init__(self) -> None:
        shapes = (self.sums.shape, self.counts.shape, self.translation.shape)
        expected = ((len(self.names), *self.translation.shape), (len(self.names),), self.translation.shape[:1])
        if shapes != expected:
            raise BankError(f"what was learned: expected sums, counts and translation {expected}, got {shapes}")
        if self.sums.dtype != np.float32 or self.translation.dtype != np.float32 or self.counts.dtype != np.float64:
            raise BankError("what was learned: expected float32 sums and translation, and float64 counts")
        if not all(np.isfinite(array).all() for array in (self.sums, self.counts, self.translation)):
            raise BankError("what was learned has numbers that are not finite")
        if (self.counts < 0).any() or self.photos < bool(self.names):
            raise BankError("what was learned: expected counts of 0 or more, and a photo for any class")
        if not all(map(math.isfinite, self.numbers.values())):
            raise BankError("what was learned has numbers that are not finite")

    @classmethod
    def nothing(cls, dim: int) -> Learn:
        """Return the change that clears what was learned from rows of ``dim`` numbers."""
        return cls((), np.empty((0, dim), np.float32), np.empty(0), np.zeros(dim, np.float32))

    def apply(self, draft: Draft) -> None:
        """Set what a draft has learned; names without a class are left out."""
        if len(self.translation) != draft.table.dim:
            raise BankError(f"what was learned has {len(self.translation)} numbers, expected {draft.table.dim}")
        by_slot = {
            slot: (self.sums[number], float(self.counts[number]))
            for number, name in enumerate(self.names)
            if (slot := draft.slot(name)) is not None
        }
        learned = Learned(self.translation, by_slot, self.numbers, self.photos, self.stale)
        draft.learned = learned if self.photos else None


Change = Add | Remove | Rename | Alias | Set | Photos | Forget | Calibrate | Fit | Learn


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a bank's history.

    Attributes:
        n: Number of the step, from 1.
        at: UTC time in ISO form.
        action: The edit that was made.
        summary: A description of the change.
        by: The author of the change, such as a command line.
        to: The step that a rollback led back to; 0 is the beginning.
        changes: What it does; None if it was taken back, or is too old to be undone, so that text alone is left.
    """

    n: int
    at: str
    action: Action
    summary: str
    by: str = ""
    to: int | None = None
    changes: tuple[Change, ...] | None = None

    @property
    def can_undo(self) -> bool:
        """Return True if it can be taken back."""
        return self.changes is not None


@dataclass(frozen=True, eq=False)
class Log:
    """The changes made to a base, step by step.

    Attributes:
        steps: All steps, the oldest first.
        begun: Number of the latest step that is too old to be undone; 0 if there is none.
        checkpoint: Step 0, which does what steps 1 to ``begun`` have done, in fewer changes; None is nothing.
    """

    steps: tuple[Step, ...] = ()
    begun: int = 0
    checkpoint: Step | None = None


def checkpoint(changes: Sequence[Change]) -> Step | None:
    """Return a step 0 with these changes; None if there are none."""
    return Step(0, "", "checkpoint", "", changes=tuple(changes)) if changes else None


def changed_info(item: ClassInfo, other: ClassInfo) -> Settings:
    """Return the settings that make one info of another, but for aliases."""
    threshold = other.threshold if other.threshold != item.threshold else None
    return Settings(
        threshold=threshold,
        no_threshold=True if other.threshold is None and item.threshold is not None else None,
        background=other.background if other.background != item.background else None,
    )
