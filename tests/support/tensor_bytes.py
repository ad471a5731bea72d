"""Safetensors files of banks and statistics, taken apart and put together by hand, lies included."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Header = dict[str, Any]
Tensors = dict[str, npt.NDArray[Any]]
_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
_CODES = {np.dtype(kind): name for name, kind in _TYPES.items()}
_MODEL = ("precision", "centre", "text_centre", "means", "counts", "slope", "prior", "broad", "scale", "photos")
_DIGESTED = {
    "class_model.safetensors": ("names", "offsets", *_MODEL, "weights", "unknown", "sets", "expected", "rivals"),
}


def split(data: bytes) -> tuple[Header, bytes]:
    """Header and data of a safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """A safetensors file, which may lie about the length of its header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def read(path: Path) -> tuple[dict[str, str], Tensors]:
    """Metadata and tensors of a sound file."""
    header, data = split(path.read_bytes())
    metadata = header.pop("__metadata__", {})
    tensors = {
        name: np.frombuffer(data[entry["data_offsets"][0] : entry["data_offsets"][1]], _TYPES[entry["dtype"]])
        .reshape(entry["shape"])
        .copy()
        for name, entry in header.items()
    }
    return metadata, tensors


def write(path: Path, metadata: dict[str, Any], tensors: Tensors) -> None:
    """A file with the content digest that fits."""
    digest = hashlib.sha256()
    for name in _DIGESTED.get(path.name, ()):
        digest.update(np.ascontiguousarray(tensors[name]).data if name in tensors else b"")
    header: Header = {"__metadata__": {**metadata, "content_digest": digest.hexdigest()}}
    data = b""
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor).tobytes()
        ends = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": ends}
        data += raw
    path.write_bytes(join(json.dumps(header).encode(), data))
