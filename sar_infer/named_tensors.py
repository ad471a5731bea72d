"""Safetensors files that hold class names with tensors, bound to an encoder; banks and heads are two kinds of them.

Tensors of every kind: ``names`` U8, all names in UTF-8 end to end; ``offsets`` I64 (C+1), where each begins and the
last one ends. Metadata of every kind: ``format``, ``schema_version``, ``min_reader``, ``encoder_digest``,
``content_digest``.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.artefact import READER_VERSION
from sar_infer.errors import SarInferError, SchemaError
from sar_infer.files import write_atomically

Tensors = Mapping[str, npt.NDArray[Any]]
_METADATA = ("schema_version", "min_reader", "encoder_digest", "content_digest")


@dataclass(frozen=True)
class Stored:
    """What such a file holds, checked against its digest.

    Attributes:
        names: C class names.
        tensors: Those of the kind, without names and offsets.
        metadata: All of it.
    """

    names: tuple[str, ...]
    tensors: Tensors
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """One kind of such a file.

    Attributes:
        format: The value of ``format`` in its metadata.
        noun: What messages call it.
        version: Its ``schema_version``, which is also its ``min_reader``.
        tensors: Type of each tensor beside the names; the content digest takes them in this order.
        error: What is raised where a file or its content is unsound.
        remedy: What to do about one of another encoder.
        metadata: Keys beside those of every kind.
    """

    format: str
    noun: str
    version: int
    tensors: Mapping[str, str]
    error: type[SarInferError]
    remedy: str
    metadata: tuple[str, ...] = ()

    def check_names(self, names: Sequence[str]) -> None:
        """Raise ``error`` where a name is empty or stands more than once."""
        seen: set[str] = set()
        for number, name in enumerate(names):
            if not name.strip():
                raise self.error(f"class {number} has an empty name")
            if name in seen:
                raise self.error(f"class name {name!r} stands more than once")
            seen.add(name)

    def content_digest(self, names: Sequence[str], tensors: Tensors) -> str:
        """SHA-256 (hex) over the bytes of names, offsets and the tensors, in this order, little-endian."""
        return digest_of(*pack_names(names), *(tensors[name] for name in self.tensors))

    def save(
        self,
        path: Path,
        names: Sequence[str],
        tensors: Tensors,
        encoder_digest: str,
        metadata: Mapping[str, str] | None = None,
        digest: str | None = None,
    ) -> None:
        """Write a file so that a reader sees the old content or the new, never a part, and it outlives a power cut.

        Args:
            path: The file.
            names: C class names.
            tensors: Those of the kind.
            encoder_digest: Whose they are.
            metadata: What the kind has beside.
            digest: Their ``content_digest`` where it is known already.

        Raises:
            SarInferError: more metadata than the format takes; it is the kind's ``error``.
            OSError: the file cannot be written; the old one is still there.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save

        header = {
            "format": self.format,
            "schema_version": str(self.version),
            "min_reader": str(self.version),
            "encoder_digest": encoder_digest,
            "content_digest": digest or self.content_digest(names, tensors),
            **(metadata or {}),
        }
        packed, offsets = pack_names(names)
        arrays = {name: np.asarray(tensors[name], order="C") for name in self.tensors}
        try:
            content = save({**arrays, "names": packed, "offsets": offsets}, header)
        except SafetensorError as error:
            raise self.error(f"{path}: cannot be written ({error})") from None
        write_atomically(path, [content])

    def load(self, path: Path, encoder_digest: str | None) -> Stored:
        """Read and check a file; None accepts one of any encoder.

        Raises:
            SchemaError: written for a newer reader.
            SarInferError: missing, damaged, of another kind, or of another encoder; it is the kind's ``error``.
        """
        metadata, tensors = self._read(path)
        found = metadata["encoder_digest"]
        if encoder_digest is not None and found != encoder_digest:
            raise self.error(
                f"{path}: belongs to another encoder: expected encoder digest {encoder_digest}, "
                f"the {self.noun} has {found}; {self.remedy}"
            )
        packed, offsets = tensors.pop("names"), tensors.pop("offsets")
        if digest_of(packed, offsets, *(tensors[name] for name in self.tensors)) != metadata["content_digest"]:
            raise self.error(f"{path}: content does not match its digest; the file was damaged or changed")
        try:
            return Stored(_unpack_names(packed, offsets), tensors, metadata)
        except ValueError as error:
            raise self.error(f"{path}: {error}") from None

    def _read(self, path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
        from safetensors import SafetensorError, safe_open

        expected = {**self.tensors, "names": "U8", "offsets": "I64"}
        if not path.is_file():
            raise self.error(f"{path}: no such {self.noun} file")
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                self._check_metadata(path, metadata)
                kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no mapping
                if kinds != expected:
                    raise self.error(f"{path}: expected tensors {expected}, found {kinds}")
                return metadata, {name: file.get_tensor(name) for name in expected}
        except (SafetensorError, OSError) as error:
            raise self.error(f"{path}: not a readable safetensors file ({error})") from None

    def _check_metadata(self, path: Path, metadata: Mapping[str, str]) -> None:
        if (found := metadata.get("format")) != self.format:
            raise self.error(f"{path}: not a class {self.noun} (metadata 'format' is {found!r}, not {self.format!r})")
        needed = metadata.get("min_reader", "")
        if needed.isdecimal() and int(needed) > READER_VERSION:
            raise SchemaError(f"{path}: needs a reader of version {needed}, this is {READER_VERSION}: upgrade sar-clip")
        for key in (*_METADATA, *self.metadata):
            if key not in metadata:
                raise self.error(f"{path}: metadata has no {key!r}")


def pack_names(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Names end to end in UTF-8, and the offsets (C+1) into them."""
    encoded = [name.encode("utf-8") for name in names]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def digest_of(*tensors: npt.NDArray[Any]) -> str:
    """SHA-256 (hex) over the tensors' bytes, little-endian."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor).astype(tensor.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def locked(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A view that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view


def _unpack_names(names: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[str, ...]:
    data = names.tobytes()
    if (
        offsets.ndim != 1
        or not offsets.size
        or offsets[0] != 0
        or offsets[-1] != len(data)
        or (np.diff(offsets) < 0).any()
    ):
        raise ValueError(f"name offsets do not fit the {len(data)} bytes of names")
    bounds = offsets.tolist()
    return tuple(data[start:end].decode("utf-8") for start, end in itertools.pairwise(bounds))
