"""The class bank: class names and their embeddings in one safetensors file, bound to the encoder that made them.

``docs/artefact.md`` describes the file. Rows of a large one stay in the file until they are used.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank import record
from sar_infer.bank.history import Stack, Step
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.lookup import Lookup
from sar_infer.errors import BankError
from sar_infer.storage.named_tensors import Kind, Stored, read_only
from sar_infer.storage.packed_names import PackedNames

MAPPED_BYTES = 64 << 20
"""Embeddings of more bytes are mapped by ``load``, not read."""
_KIND = Kind(
    format="sar-bank",
    noun="bank",
    version=2,
    tensors={"embeddings": "F32"},
    error=BankError,
    remedy="name the bundle that it was made with (--bundle), or embed its classes anew (sar-bank add NEW --from IT)",
    metadata=("provenance",),
    optional=record.TENSORS,
)
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class ClassBank:
    """Class names with their embeddings; checked when built, so that one that exists is sound.

    Only ``load`` of a large file leaves names and rows unchecked, until ``check`` or ``verified``.

    Attributes:
        names: C different, non-empty class names; equal to the tuple of them.
        embeddings: (C, D) float32, rows of length 1, read-only.
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose name encoder made the rows.
        provenance: Free JSON content: where the names come from.
        info: What is known of classes beside name and row, where that is anything.
        history: What was done to the bank, the oldest first.
        stack: Rows that the history needs to undo steps; None is an empty one.

    Raises:
        BankError: any of this does not hold.
    """

    names: Sequence[str]
    embeddings: Floats
    encoder_digest: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, ClassInfo] = field(default_factory=dict)
    history: tuple[Step, ...] = ()
    stack: Stack | None = None
    checked: InitVar[bool] = False

    def __post_init__(self, checked: bool) -> None:
        rows = self.embeddings
        if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(self.names):
            raise BankError(f"expected float32 ({len(self.names)}, D) embeddings, got {rows.dtype} {rows.shape}")
        try:
            object.__setattr__(self, "names", PackedNames.of(self.names))
        except UnicodeEncodeError as error:
            raise BankError(f"a class name is not text: {error}") from None
        object.__setattr__(self, "embeddings", read_only(rows))
        record.check_stack(self.history, self.retired, rows.shape[1])
        if not checked:
            self.check()

    def check(self) -> None:
        """Look at every name and row, in memory for the names alone.

        Raises:
            BankError: the first thing that does not hold.
        """
        _KIND.check_names(self.names)
        rows = self.embeddings
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # as norm, without a copy of all rows
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
        if wrong.size:
            row = int(wrong[0])
            raise BankError(f"embedding of {self.names[row]!r} has length {lengths[row]:.4g}, expected 1")
        stray = next((name for name in self.info if name not in self.index), None) if self.info else None
        if stray is not None:
            raise BankError(f"info of class {stray!r:.80}, which the bank does not have")
        if any(item.aliases for item in self.info.values()):
            _ = self.lookup  # it checks them

    @property
    def retired(self) -> Stack:
        """The stack, empty where there is none."""
        return Stack.empty(self.embeddings.shape[1]) if self.stack is None else self.stack

    @property
    def own(self) -> int:
        """How many classes are the bundle's own: neither added nor embedded anew at run time."""
        return len(self.names) - sum(item.added is not None for item in self.info.values())

    def phrases(self, name: str) -> tuple[str, ...]:
        """What was embedded for a class, by its exact name; the name itself where nothing else is known."""
        return self.info.get(name, PLAIN).phrases or (name,)

    def verified(self) -> ClassBank:
        """This bank, after a look at every byte that ``load`` left in the file; every edit takes it first.

        Raises:
            BankError: the file was damaged or changed.
        """
        stored: Stored | None = self.__dict__.get("_unread")
        if stored is not None:
            record.read(stored, whole=True)
            if _KIND.content_digest(self.names, {"embeddings": self.embeddings}) != self.content_digest:
                raise BankError("content does not match its digest; the file was damaged or changed")
            self.check()
            self.__dict__.pop("_unread", None)  # another thread may have looked too
        return self

    @functools.cached_property
    def index(self) -> Mapping[str, int]:
        """Row of each name."""
        return {name: row for row, name in enumerate(self.names)}

    @functools.cached_property
    def lookup(self) -> Lookup:
        """Rows by any spelling of a name or alias."""
        return Lookup(self.names, self.info)

    @functools.cached_property
    def background(self) -> npt.NDArray[np.bool_] | None:
        """(C,) which classes are background; None where none is."""
        rows = [self.index[name] for name, item in self.info.items() if item.background]
        if not rows:
            return None
        result = np.zeros(len(self.names), dtype=np.bool_)
        result[rows] = True
        return result

    @functools.cached_property
    def thresholds(self) -> Floats | None:
        """(C,) least score of each class, NaN where it has none; None where no class has one."""
        known = {self.index[name]: item.threshold for name, item in self.info.items() if item.threshold is not None}
        if not known:
            return None
        result = np.full(len(self.names), np.nan, dtype=np.float32)
        result[list(known)] = list(known.values())
        return result

    @functools.cached_property
    def content_digest(self) -> str:
        """SHA-256 (hex) over the bytes of names, offsets and embeddings, in this order, little-endian.

        Of a large file it is what the file says, until ``verified``.
        """
        return _KIND.content_digest(self.names, {"embeddings": self.embeddings})

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old content or the new, never a part.

        Raises:
            BankError: more phrases, aliases and history than a file's header takes; the old file is still there.
            OSError: it cannot be written; the old file is still there.
        """
        kept = self.retired
        content = record.Record(self.provenance, self.info, self.history, kept)
        metadata = record.metadata(content, self.index if self.info else {}, self.encoder_digest)
        tensors = {"embeddings": self.embeddings, **record.tensors(kept)}
        reader = 2 if self.info or len(kept) else 1
        _KIND.save(path, self.names, tensors, self.encoder_digest, metadata, self.content_digest, reader)

    @classmethod
    def load(cls, path: Path, encoder_digest: str | None = None) -> ClassBank:
        """Read and check a bank file; one with more than ``MAPPED_BYTES`` of embeddings is mapped.

        Of a mapped file only the frame is checked: header, sizes, offsets, UTF-8, and what is known beside names and
        rows. Our own writers replace files and never shorten them, so that a mapped one stays as it is.

        Args:
            path: The file.
            encoder_digest: The encoder that it must belong to; None accepts any.

        Raises:
            SchemaError: written for a newer reader.
            BankError: missing, damaged, not a bank, or of another encoder.
        """
        return cls._open(path, encoder_digest, whole=False)

    @classmethod
    def verify(cls, path: Path, encoder_digest: str | None = None) -> ClassBank:
        """As ``load``, but every byte of a large file is checked too; what is about to be edited should be.

        Raises:
            SchemaError: written for a newer reader.
            BankError: missing, damaged, not a bank, or of another encoder.
        """
        return cls._open(path, encoder_digest, whole=True)

    @classmethod
    def _open(cls, path: Path, encoder_digest: str | None, whole: bool) -> ClassBank:
        stored = _KIND.load(path, encoder_digest, MAPPED_BYTES)
        metadata = stored.metadata
        try:
            read = record.read(stored)
            bank = cls(
                names=stored.names,
                embeddings=stored.tensors["embeddings"],
                encoder_digest=metadata["encoder_digest"],
                provenance=read.provenance,
                info=read.info,
                history=read.history,
                stack=read.stack,
                checked=not stored.checked,
            )
            bank.__dict__["content_digest"] = metadata["content_digest"]  # where the cached property keeps it
            if not stored.checked:
                bank.__dict__["_unread"] = stored
            return bank.verified() if whole else bank
        except (BankError, ValueError, RecursionError) as error:
            raise BankError(f"{path}: {error}") from None
