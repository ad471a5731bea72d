"""The class bank: class names and their embeddings in one safetensors file, bound to the encoder that made them.

Tensors: ``embeddings`` F32 (C, D), rows of length 1; ``names`` U8, all names in UTF-8 end to end; ``offsets`` I64
(C+1), where each begins and the last one ends. Metadata: ``format`` = ``sar-bank``, ``schema_version``, ``min_reader``,
``encoder_digest``, ``content_digest``, ``provenance`` (JSON).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.artefact import READER_VERSION
from sar_infer.errors import BankError, SchemaError

FORMAT = "sar-bank"
SCHEMA_VERSION = 1
_TENSORS = {"embeddings": "F32", "names": "U8", "offsets": "I64"}
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
        if not all(name.strip() for name in self.names):
            raise BankError(f"class {[bool(name.strip()) for name in self.names].index(False)} has an empty name")
        if len(self.index) != len(self.names):
            repeated = next(name for i, name in enumerate(self.names) if self.index[name] != i)
            raise BankError(f"class name {repeated!r} stands more than once")
        lengths = np.linalg.norm(rows, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
        if wrong.size:
            row = int(wrong[0])
            raise BankError(f"embedding of {self.names[row]!r} has length {lengths[row]:.4g}, expected 1")
        locked = rows.view()
        locked.flags.writeable = False
        object.__setattr__(self, "embeddings", locked)

    @functools.cached_property
    def index(self) -> Mapping[str, int]:
        """Row of each name."""
        return {name: row for row, name in enumerate(self.names)}

    @functools.cached_property
    def content_digest(self) -> str:
        """SHA-256 (hex) over the bytes of names, offsets and embeddings, in this order, little-endian."""
        return _content_digest(*_pack_names(self.names), self.embeddings)

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old content or the new, never a part."""
        from safetensors.numpy import save

        names, offsets = _pack_names(self.names)
        metadata = {
            "format": FORMAT,
            "schema_version": str(SCHEMA_VERSION),
            "min_reader": str(SCHEMA_VERSION),
            "encoder_digest": self.encoder_digest,
            "content_digest": self.content_digest,
            "provenance": json.dumps(dict(self.provenance), ensure_ascii=False, sort_keys=True),
        }
        tensors: dict[str, npt.NDArray[Any]] = {
            "embeddings": np.ascontiguousarray(self.embeddings),
            "names": names,
            "offsets": offsets,
        }
        _write_atomically(path, save(tensors, metadata))

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
        metadata, tensors = _read(path)
        found = metadata["encoder_digest"]
        if encoder_digest is not None and found != encoder_digest:
            raise BankError(
                f"{path}: belongs to another encoder: expected encoder digest {encoder_digest}, the bank has {found}; "
                "make a bank with this bundle"
            )
        if _content_digest(tensors["names"], tensors["offsets"], tensors["embeddings"]) != metadata["content_digest"]:
            raise BankError(f"{path}: content does not match its digest; the file was damaged or changed")
        try:
            names = _unpack_names(tensors["names"], tensors["offsets"])
            return cls(names, tensors["embeddings"], found, json.loads(metadata["provenance"]))
        except (BankError, ValueError) as error:
            raise BankError(f"{path}: {error}") from None


def _read(path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BankError(f"{path}: no such bank file")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            _check_metadata(path, metadata)
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a mapping
            if kinds != _TENSORS:
                raise BankError(f"{path}: expected tensors {_TENSORS}, found {kinds}")
            return metadata, {name: file.get_tensor(name) for name in _TENSORS}
    except (SafetensorError, OSError) as error:
        raise BankError(f"{path}: not a readable safetensors file ({error})") from None


def _check_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise BankError(f"{path}: not a class bank (metadata 'format' is {metadata.get('format')!r}, not {FORMAT!r})")
    needed = metadata.get("min_reader", "")
    if needed.isdecimal() and int(needed) > READER_VERSION:
        raise SchemaError(f"{path}: needs a reader of version {needed}, this is {READER_VERSION}: upgrade sar-clip")
    for key in ("schema_version", "min_reader", "encoder_digest", "content_digest", "provenance"):
        if key not in metadata:
            raise BankError(f"{path}: metadata has no {key!r}")


def _pack_names(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    encoded = [name.encode("utf-8") for name in names]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def _unpack_names(names: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[str, ...]:
    data = names.tobytes()
    if (
        offsets.ndim != 1
        or not offsets.size
        or offsets[0] != 0
        or offsets[-1] != len(data)
        or (np.diff(offsets) < 0).any()
    ):
        raise BankError(f"name offsets do not fit the {len(data)} bytes of names")
    bounds = offsets.tolist()
    return tuple(data[start:end].decode("utf-8") for start, end in itertools.pairwise(bounds))


def _content_digest(*tensors: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor).astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
