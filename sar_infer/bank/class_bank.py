"""The class bank: class names and their embeddings in one safetensors file, bound to the encoder that made them.

``docs/artefact.md`` describes the file. Rows of a large one stay in the file until they are used.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank import record
from sar_infer.bank.history import Stack, Step
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.search import Lookup
from sar_infer.errors import BankError
from sar_infer.storage.named_tensors import Kind, Stored, read_only
from sar_infer.storage.packed_names import PackedNames

MAPPED_BYTES = 64 << 20
"""Size above which ``load`` maps embeddings and does not read them."""
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
    """Class names with their embeddings; it is checked when built, so that every bank that exists is sound.

    The one exception is a large file: ``load`` leaves its names and rows unchecked until ``verified`` is called.

    Attributes:
        names: C different, non-empty class names; equal to the tuple of them.
        embeddings: (C, D) float32, rows of length 1, read-only.
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose name encoder made the rows.
        provenance: Free JSON content: where the names come from.
        info: What is known of classes beside name and row, for those classes of which anything is.
        history: The steps by which the bank was changed, the oldest first.
        stack: Rows that the history needs to undo steps; None is an empty stack.
        file: The content of the file that it was loaded from. For as long as names and embeddings are the same
            objects, its digest holds for them, and if it was not checked whole, neither is the bank.

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
    file: Stored | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        rows = self.embeddings
        if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(self.names):
            raise BankError(f"expected float32 ({len(self.names)}, D) embeddings, got {rows.dtype} {rows.shape}")
        try:
            object.__setattr__(self, "names", PackedNames.of(self.names))
        except UnicodeEncodeError as error:
            raise BankError(f"a class name is not text: {error}") from None
        if rows.flags.writeable:
            object.__setattr__(self, "embeddings", read_only(rows))
        record.check_stack(self.history, self.retired, rows.shape[1])
        if self._as_stored is None or self._as_stored.checked:
            self.check()

    def check(self) -> None:
        """Check every name and row; only the names take memory.

        Raises:
            BankError: something does not hold; the first finding is named.
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

    def verified(self) -> ClassBank:
        """Return this bank after checking every byte that ``load`` left unread; every edit calls it first.

        Raises:
            BankError: the file was damaged or changed.
        """
        _ = self._sound
        return self

    @property
    def retired(self) -> Stack:
        """Return the stack, empty if there is none."""
        return Stack.empty(self.embeddings.shape[1]) if self.stack is None else self.stack

    @property
    def own(self) -> int:
        """Return how many classes are the bundle's own: neither added nor embedded anew at run time."""
        return len(self.names) - sum(item.added is not None for item in self.info.values())

    def phrases(self, name: str) -> tuple[str, ...]:
        """Return the texts that were embedded for a class, by its exact name; by default the name itself."""
        return self.info.get(name, PLAIN).phrases or (name,)

    @functools.cached_property
    def index(self) -> Mapping[str, int]:
        """Return the row of each name."""
        return {name: row for row, name in enumerate(self.names)}

    @functools.cached_property
    def lookup(self) -> Lookup:
        """Return rows by any spelling of a name or alias."""
        return Lookup(self.names, self.info)

    @functools.cached_property
    def background(self) -> npt.NDArray[np.bool_] | None:
        """Return flags (C,) of background classes; None if there are none."""
        rows = [self.index[name] for name, item in self.info.items() if item.background]
        if not rows:
            return None
        result = np.zeros(len(self.names), dtype=np.bool_)
        result[rows] = True
        return result

    @functools.cached_property
    def thresholds(self) -> Floats | None:
        """Return the least score (C,) of each class, NaN for one that has none; None if no class has one."""
        known = {self.index[name]: item.threshold for name, item in self.info.items() if item.threshold is not None}
        if not known:
            return None
        result = np.full(len(self.names), np.nan, dtype=np.float32)
        result[list(known)] = list(known.values())
        return result

    @functools.cached_property
    def content_digest(self) -> str:
        """Return SHA-256 (hex) over the bytes of names, offsets and embeddings, in this order, little-endian.

        Of a large file it is the digest that the file states, until ``verified`` has compared it with the content.
        """
        stored = self._as_stored
        return self._digest() if stored is None else stored.metadata["content_digest"]

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old content or the new, never a part.

        Raises:
            BankError: phrases, aliases and history exceed a file's header; the old file is still there.
            OSError: the file cannot be written; the old one is still there.
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

        Of a mapped file only the frame is checked: header, sizes, offsets, UTF-8, class info and history. Our own
        writers replace files and never shorten them, so that a mapped file stays as it is.

        Args:
            path: The file.
            encoder_digest: The encoder that it must belong to; None accepts any.

        Raises:
            SchemaError: it was written for a newer reader.
            BankError: it is missing, damaged, no bank, or of another encoder.
        """
        return cls._open(path, encoder_digest, whole=False)

    @classmethod
    def verify(cls, path: Path, encoder_digest: str | None = None) -> ClassBank:
        """Load a file as ``load`` does, and check every byte of a large one too, as is due before an edit.

        Raises:
            SchemaError: it was written for a newer reader.
            BankError: it is missing, damaged, no bank, or of another encoder.
        """
        return cls._open(path, encoder_digest, whole=True)

    @classmethod
    def _open(cls, path: Path, encoder_digest: str | None, whole: bool) -> ClassBank:
        stored = _KIND.load(path, encoder_digest, MAPPED_BYTES)
        stored = replace(stored, tensors={**stored.tensors, "embeddings": read_only(stored.tensors["embeddings"])})
        try:
            read = record.read(stored)
            bank = cls(
                names=stored.names,
                embeddings=stored.tensors["embeddings"],
                encoder_digest=stored.metadata["encoder_digest"],
                provenance=read.provenance,
                info=read.info,
                history=read.history,
                stack=read.stack,
                file=stored,
            )
            return bank.verified() if whole else bank
        except (BankError, ValueError, RecursionError) as error:
            raise BankError(f"{path}: {error}") from None

    @property
    def _as_stored(self) -> Stored | None:
        """Return the file, if names and embeddings still are its own."""
        file = self.file
        if file is None or self.names is not file.names or self.embeddings is not file.tensors["embeddings"]:
            return None
        return file

    @functools.cached_property
    def _sound(self) -> bool:
        """Return True once every byte has been checked; errors are not cached, so that each call raises them."""
        stored = self._as_stored
        if stored is not None and not stored.checked:
            record.read(stored, whole=True)
            if self._digest() != stored.metadata["content_digest"]:
                raise BankError("content does not match its digest; the file was damaged or changed")
            self.check()
        return True

    def _digest(self) -> str:
        return _KIND.content_digest(self.names, {"embeddings": self.embeddings})
