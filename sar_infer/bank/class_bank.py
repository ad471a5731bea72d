"""The class bank: a state with the log that led to it, and its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_infer._arrays import Floats
from sar_infer.bank import file
from sar_infer.bank.file import Content
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.learned import BankCalibration
from sar_infer.bank.log import (
    Log,
    Step,
    applied,
    changes_of,
    checkpoint,
    converted,
    flattened,
    folded,
    recognised,
    replay,
)
from sar_infer.bank.old_files import KIND, renamed_names
from sar_infer.bank.photos import PhotoSet
from sar_infer.bank.state import Base, State, check_base
from sar_infer.bank.table import Block
from sar_infer.errors import BankError, BaseMissingError
from sar_infer.storage.named_tensors import read_only

_NO_TIME = "1970-01-01T00:00:00Z"


class ClassBank(State):
    """Class names with their embeddings, all that is known of them, and what was done to them; it never changes.

    Built of names and rows it is checked, and stands alone. ``load`` opens a file; edits, such as `sar_infer.bank.add`,
    return a new bank with one more step of history, and share the rows of the old one.

    Args:
        names: C different, non-empty class names.
        embeddings: (C, D) float32, rows of length 1.
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose name encoder made the rows.
        provenance: Free JSON content: where the names come from.
        info: What is known of classes beside name and row, by name.
        photos: The photos of classes, by name.
        calibration: From ``sar-bank calibrate``.

    Attributes:
        log: What was done to the base.

    Raises:
        BankError: Something does not hold.
    """

    log: Log

    def __init__(
        self,
        names: Sequence[str],
        embeddings: Floats,
        encoder_digest: str,
        provenance: Mapping[str, Any] | None = None,
        info: Mapping[str, ClassInfo] | None = None,
        photos: Mapping[str, PhotoSet] | None = None,
        calibration: BankCalibration | None = None,
    ) -> None:
        block = Block(tuple(names), read_only(embeddings))
        KIND.check_names(block.names)
        try:
            "".join(block.names).encode()
        except UnicodeEncodeError as error:
            raise BankError(f"a class name is not text: {error}") from None
        slots = {name: slot for slot, name in enumerate(block.names)} if info or photos else {}
        stray = next((name for name in (*(info or {}), *(photos or {})) if name not in slots), None)
        if stray is not None:
            raise BankError(f"something is known of class {stray!r:.80}, which the bank does not have")
        info_by_slot = {slots[name]: item for name, item in (info or {}).items() if item != PLAIN}
        sets = {slots[name]: one.limited() for name, one in (photos or {}).items() if one}
        base = Base(block, encoder_digest, provenance or {}, info_by_slot, sets, calibration)
        check_base(base)
        super().__init__(base)
        self.log = Log()

    @classmethod
    def of(cls, state: State, log: Log) -> ClassBank:
        """Return a state with the log that led to it."""
        bank = cls.__new__(cls)
        vars(bank).update(vars(state))
        bank.log = log
        return bank

    @property
    def history(self) -> tuple[Step, ...]:
        """Return the steps by which the bank was changed, the oldest first."""
        return self.log.steps

    @property
    def calibration_holds(self) -> bool | None:
        """Return True if the calibration is of the bank as it is, False if it is of an earlier state; None without."""
        return None if self.calibration is None else self.calibration.fits(self)

    @classmethod
    def load(
        cls,
        path: Path,
        encoder_digest: str | None = None,
        base: ClassBank | None = None,
        *,
        previous: ClassBank | None = None,
        whole: bool = False,
    ) -> ClassBank:
        """Read a bank file and replay what was done to its base.

        Tensors above 64 MiB are mapped, and checked by ``verify`` alone. Our own writers replace files and never
        shorten them, so that a mapped file stays as it is.

        Args:
            path: The file.
            encoder_digest: The encoder that it must belong to; None accepts any, or that of ``base``.
            base: What to replay on: the bank of a bundle with the same encoder. None takes the base that the file
                holds, or the one that it names, if that is still where it was.
            previous: The bank of this file as it was before; what has not changed since is not read again.
            whole: Check every byte.

        Raises:
            SchemaError: It was written for a newer reader.
            BankError: It is missing, damaged, no bank, or of another encoder, or its base is not there.
        """
        expected = base.encoder_digest if encoder_digest is None and base is not None else encoder_digest
        content = file.read(path, expected, None if previous is None else previous.log, whole=whole)
        try:
            return cls._on(content, _base_of(content) if base is None else base.base, previous)
        except BaseMissingError as error:
            raise BaseMissingError(f"{path}: {error}") from None
        except (BankError, ValueError) as error:
            raise BankError(f"{path}: {error}") from None

    @classmethod
    def verify(cls, path: Path, encoder_digest: str | None = None, base: ClassBank | None = None) -> ClassBank:
        """Load a file as ``load`` does, and check every byte of a large one too.

        Raises:
            SchemaError: It was written for a newer reader.
            BankError: As ``load``.
        """
        return cls.load(path, encoder_digest, base, whole=True)

    @classmethod
    def _on(cls, content: Content, base: Base, previous: ClassBank | None) -> ClassBank:
        log = content.log
        if content.base is not None and not content.base.same(base):
            moved = cls._moved(content, base)
            return cls.of(replay(content.base, log), log) if moved is None else moved
        if previous is not None and previous.base is base:
            count = len(previous.log.steps)
            same = log.steps[:count] == previous.log.steps and log.checkpoint is previous.log.checkpoint
            if same and all(step.to is None for step in log.steps[count:]):
                changes = [change for step in log.steps[count:] for change in step.changes or ()]
                return cls.of(applied(previous, changes), log)
        return cls.of(replay(base, log), log)

    @classmethod
    def _moved(cls, content: Content, base: Base) -> ClassBank | None:
        """Return the bank of a file that holds all rows itself, on a base with which it shares most; else None."""
        assert content.base is not None  # noqa: S101 - checked by the caller
        alone = replay(content.base, content.log)
        flat = flattened(alone)
        steps = tuple(dataclasses.replace(step, changes=None) for step in content.log.steps)
        at = steps[-1].at if steps else _NO_TIME
        slots = recognised(base, flat.block, renamed_names(content.provenance))
        if 2 * len(slots) < min(len(base.block), len(flat.block)):
            return None
        state = converted(base, flat, slots, at)
        calibration = flat.calibration
        if calibration is not None and calibration.content_digest == flat.digest:
            calibration = dataclasses.replace(calibration, content_digest=state.content_digest)
        state.calibration = calibration
        return cls.of(state, Log(steps, len(steps), checkpoint(changes_of(state))))

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old content or the new, never a part.

        Raises:
            BankError: There is more text than a file's header takes; the old file is still there.
            OSError: The file cannot be written; the old one is still there.
        """
        file.write(path, self.base, folded(self.base, self.log), self.content_digest)

    def shared(self, path: Path) -> ClassBank:
        """Return this bank as the base of others, which a bundle has at a path; without its history."""
        base = flattened(self)
        base = dataclasses.replace(base, path=str(path), stated=base.digest)
        return ClassBank.of(State(base), Log())

    def settled(self) -> ClassBank:
        """Return the bank as it is given away: without its history, and with sums and digests of photos alone.

        It ranks as before, and its calibration holds if it held before. Nothing can be undone, and no row of a photo is
        in it; fitted statistics and what was learned without labels, which are sums too, stay.
        """
        base = flattened(self, photo_rows=False)
        return ClassBank.of(State(base), Log())

    def without_calibration(self) -> ClassBank:
        """Return the bank as if it had never been calibrated."""
        bank = ClassBank.of(self, self.log)
        bank.calibration = None
        return bank


def _base_of(content: Content) -> Base:
    """Return the base that a file holds, or the one that it names.

    Raises:
        BaseMissingError: It is not where it was.
    """
    if content.base is not None:
        return content.base
    path = Path(content.path or "")
    remedy = "name its bundle (--bundle), or pass base="
    if not path.is_file():
        raise BaseMissingError(f"its classes are changes of the bundle at {path.parent}, which is not there; {remedy}")
    base = ClassBank.load(path, content.encoder_digest).shared(path).base
    if base.digest != content.base_digest:
        raise BaseMissingError(
            f"its classes are changes of a bundle that was at {path.parent}, where another is now; {remedy}"
        )
    return base
