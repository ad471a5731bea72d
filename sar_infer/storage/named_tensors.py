"""Safetensors files of class names with tensors, bound to an encoder; the bundle's manifest has their digest.

A file has its own tensors and ``names`` U8, all names in UTF-8 end to end, and ``offsets`` I64 (C+1), where each
name begins and the last one ends. Its metadata are ``format``, ``version`` and ``encoder_digest``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer.errors import BundleError, SchemaError, raised_as
from sar_infer.storage.files import write_atomically
from sar_infer.storage.tensor_file import TensorFile, Tensors, file_pieces

Value = TypeVar("Value", bound=np.generic)
_CONTINUES = 0x80
"""The upper two bits of a UTF-8 byte that does not begin a character."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        format: The value of ``format`` in its metadata.
        version: That of ``version``.
        tensors: Type of each tensor other than the names.
    """

    format: str
    version: int
    tensors: Mapping[str, str]

    def save(self, path: Path, names: Sequence[str], tensors: Tensors, encoder_digest: str) -> None:
        """Write a file atomically and durably; see ``files.write_atomically``.

        Args:
            path: The file.
            names: C class names.
            tensors: The tensors of the kind.
            encoder_digest: The encoder that the tensors belong to.

        Raises:
            OSError: The file cannot be written; an old one is still there.
        """
        metadata = {"format": self.format, "version": str(self.version), "encoder_digest": encoder_digest}
        data, offsets = packed(names)
        write_atomically(path, file_pieces({**tensors, "names": data, "offsets": offsets}, metadata))

    def load(self, path: Path, encoder_digest: str | None) -> tuple[tuple[str, ...], dict[str, npt.NDArray[Any]], str]:
        """Read a file and return its class names, its tensors without those of the names, and its encoder.

        Args:
            path: The file.
            encoder_digest: The encoder that the file must belong to; None accepts any.

        Raises:
            SchemaError: The file has another version.
            BundleError: The file is missing, damaged, of another kind, or of another encoder.
        """
        with raised_as(BundleError, str(path), (ValueError, OSError)), path.open("rb") as stream:
            file = TensorFile(stream)
            metadata, kinds = file.metadata, {name: entry.kind for name, entry in file.entries.items()}
            if metadata.get("format") != self.format:
                raise ValueError(f"format {metadata.get('format')!r:.40}, expected {self.format!r}")
            if metadata.get("version") != str(self.version):
                raise SchemaError(f"{path}: version {metadata.get('version')!r:.40}, expected {self.version}")
            encoder = metadata.get("encoder_digest", "")
            if encoder_digest is not None and encoder != encoder_digest:
                raise ValueError(f"belongs to another encoder: {encoder:.8}, expected {encoder_digest:.8}")
            expected = {**self.tensors, "names": "U8", "offsets": "I64"}
            if expected != kinds:
                raise ValueError(f"expected tensors {expected}, got {kinds}")
            tensors = {name: file.tensor(name) for name in kinds}
            return unpacked(tensors.pop("names"), tensors.pop("offsets")), tensors, encoder


def packed(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return names in UTF-8, end to end, and (C+1,) where each begins and the last one ends.

    Raises:
        UnicodeEncodeError: A name holds half a surrogate pair; it is a ValueError.
    """
    encoded = [name.encode("utf-8") for name in names]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def unpacked(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """Return the names that ``packed`` has packed.

    Raises:
        ValueError: The offsets do not fit, or a name is not UTF-8.
    """
    fits = (
        (data.ndim, offsets.ndim) == (1, 1)
        and offsets.size > 0
        and offsets[0] == 0
        and offsets[-1] == data.size
        and not (offsets[1:] < offsets[:-1]).any()
    )
    if not fits:
        raise ValueError(f"name offsets do not fit the {data.size} bytes of names")
    if ((data[offsets[offsets < data.size]] & 0xC0) == _CONTINUES).any():
        raise ValueError("name offsets cut a character in two")
    content = data.tobytes()
    return tuple(content[start:stop].decode("utf-8") for start, stop in itertools.pairwise(offsets.tolist()))


def read_only(array: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """Return a view that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view
