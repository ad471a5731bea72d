"""The class bank: class names and their embeddings in one safetensors file, bound to the encoder that made them.

Tensors: ``embeddings`` F32 (C, D), rows of length 1, beside the names as ``named_tensors`` stores them. Metadata:
``format`` = ``sar-bank``, ``provenance`` (JSON), and what every such file has.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.errors import BankError
from sar_infer.named_tensors import Kind, locked

_KIND = Kind(
    format="sar-bank",
    noun="bank",
    version=1,
    tensors={"embeddings": "F32"},
    error=BankError,
    remedy="make a bank with this bundle",
    metadata=("provenance",),
)
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class ClassBank:
    """Class names with their embeddings; checked when built, so that one that exists is sound.

    Attributes:
        names: C different, non-empty class names.
        embeddings: (C, D) float32, rows of length 1, read-only.
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose name encoder made the rows.
        provenance: Free JSON content: where the names come from.

    Raises:
        BankError: any of this does not hold.
    """

    names: tuple[str, ...]
    embeddings: npt.NDArray[np.float32]
    encoder_digest: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = self.embeddings
        if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(self.names):
            raise BankError(f"expected float32 ({len(self.names)}, D) embeddings, got {rows.dtype} {rows.shape}")
        _KIND.check_names(self.names)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # as norm, without a copy of all rows
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
        if wrong.size:
            row = int(wrong[0])
            raise BankError(f"embedding of {self.names[row]!r} has length {lengths[row]:.4g}, expected 1")
        object.__setattr__(self, "embeddings", locked(rows))

    @functools.cached_property
    def index(self) -> Mapping[str, int]:
        """Row of each name."""
        return {name: row for row, name in enumerate(self.names)}

    @functools.cached_property
    def content_digest(self) -> str:
        """SHA-256 (hex) over the bytes of names, offsets and embeddings, in this order, little-endian."""
        return _KIND.content_digest(self.names, {"embeddings": self.embeddings})

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old content or the new, never a part."""
        provenance = json.dumps(dict(self.provenance), ensure_ascii=False, sort_keys=True)
        tensors = {"embeddings": self.embeddings}
        _KIND.save(path, self.names, tensors, self.encoder_digest, {"provenance": provenance}, self.content_digest)

    @classmethod
    def load(cls, path: Path, encoder_digest: str | None = None) -> ClassBank:
        """Read and check a bank file.

        Args:
            path: The file.
            encoder_digest: The encoder that it must belong to; None accepts any.

        Raises:
            SchemaError: written for a newer reader.
            BankError: missing, damaged, not a bank, or of another encoder.
        """
        stored = _KIND.load(path, encoder_digest)
        try:
            provenance = json.loads(stored.metadata["provenance"])
            return cls(stored.names, stored.tensors["embeddings"], stored.metadata["encoder_digest"], provenance)
        except (BankError, ValueError) as error:
            raise BankError(f"{path}: {error}") from None
