"""Safetensors files, read tensor by tensor and written in pieces; the library would copy whole files.

The format (https://github.com/huggingface/safetensors#format) is: 8 bytes, the little-endian length of the header; the
header, JSON with type, shape and offsets of each tensor, and metadata as text; the tensors' bytes end to end,
little-endian.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""
_METADATA = "__metadata__"
_TYPES = {"F64": "<f8", "I64": "<i8", "F32": "<f4", "F16": "<f2", "U8": "|u1"}
Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TensorEntry:
    """The type and shape of a tensor, and where in the file its bytes begin and end."""

    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


class TensorFile:
    """An open file with a sound header: the tensors follow each other without gap or overlap, and fill the file.

    Args:
        stream: The file, which must stay open while tensors are read.

    Raises:
        ValueError: The header is not sound.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        header, begin, size = _read_header(stream)
        metadata = header.pop(_METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata: expected an object of text")
        self.metadata: Mapping[str, str] = metadata
        self.entries = {name: _entry(name, item, begin) for name, item in header.items()}
        end = begin
        for name, entry in sorted(self.entries.items(), key=lambda pair: (pair[1].start, pair[1].end)):
            if entry.start != end or entry.end < end:
                raise ValueError(f"tensor {name!r:.40} begins at byte {entry.start}, expected {end}")
            end = entry.end
        if end != size:
            raise ValueError(f"the tensors end at byte {end}, the file at {size}")

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor.

        Raises:
            ValueError: Its type is unknown, its bytes do not fit its shape, or the file ends too early.
        """
        entry = self.entries[name]
        if entry.kind not in _TYPES:
            raise ValueError(f"tensor {name!r:.40}: unknown type {entry.kind!r:.40}")
        kind, count = np.dtype(_TYPES[entry.kind]), math.prod(entry.shape)
        if count * kind.itemsize != entry.end - entry.start:
            raise ValueError(f"tensor {name!r:.40}: {entry.end - entry.start} bytes do not fit {entry.shape}")
        array = np.empty(count, dtype=kind)
        self._stream.seek(entry.start)
        if self._stream.readinto(array.view(np.uint8).data) != array.nbytes:  # type: ignore[attr-defined]
            raise ValueError(f"tensor {name!r:.40}: the file ends too early")
        return array.reshape(entry.shape)


def tensor_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of an array in C order, little-endian; most arrays are not copied."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data


def file_pieces(tensors: Tensors, metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Yield the content of a file, wide types first, so that every tensor is aligned.

    Raises:
        ValueError: There is more metadata than the format takes; raised before anything is yielded.
    """
    kinds = {np.dtype(kind): name for name, kind in _TYPES.items()}
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        array = tensors[name]
        kind = kinds[array.dtype.newbyteorder("<")]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST_HEADER:
        raise ValueError(f"header too large: {len(text):,} bytes, the format takes {LONGEST_HEADER:,}")
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield tensor_bytes(tensors[name])


def _read_header(stream: BinaryIO) -> tuple[dict[str, Any], int, int]:
    """Return the header, where the tensors begin, and the size of the file."""
    size = os.fstat(stream.fileno()).st_size
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > min(size - 8, LONGEST_HEADER):
        raise ValueError("not a safetensors file, or cut off")
    try:
        header = json.loads(stream.read(length).decode("utf-8"))
    except RecursionError:  # a bundle may come from anyone
        raise ValueError("header: nested too deep") from None
    if not isinstance(header, dict):
        raise ValueError("header: expected an object")
    return header, 8 + length, size


def _entry(name: str, item: Any, begin: int) -> TensorEntry:
    """Return one tensor's entry from that of the header, its offsets counted from the start of the file."""
    if not isinstance(item, dict) or item.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r:.40}: expected dtype, shape and data_offsets")
    kind, shape, bounds = item["dtype"], item["shape"], item["data_offsets"]
    lists = isinstance(shape, list) and isinstance(bounds, list) and len(bounds) == 2
    if not (isinstance(kind, str) and lists and all(type(n) is int and n >= 0 for n in (*shape, *bounds))):
        raise ValueError(f"tensor {name!r:.40}: expected a type, sizes and two offsets, got {item!r:.80}")
    return TensorEntry(kind, tuple(shape), begin + bounds[0], begin + bounds[1])
