"""Search an ONNX file for data outside itself, without onnxruntime, which would open them.

ONNX is protobuf. Only the fields named here are followed; everything else, above all the weights, is passed over, so
that a file of any size takes milliseconds. Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from sar_infer.errors import BundleError

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_external_data(path: Path) -> None:
    """Check that an ONNX file holds all its weights.

    Raises:
        BundleError: It refers to data outside itself, or is not an ONNX file.
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        external = _points_outside(view, "model")
    except (ValueError, IndexError, RecursionError) as error:
        raise BundleError(f"{path}: not a readable ONNX file ({error})") from None
    if external:
        raise BundleError(f"{path}: refers to data outside the file; a bundle's graphs must contain all their weights")


def _points_outside(view: memoryview, message: str) -> bool:
    children = _CHILDREN[message]
    for number, value in _fields(view):
        if message == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and _varint(value, 0)[0])):
            return True
        if number in children and _points_outside(value, children[number]):
            return True
    return False


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and raw value of each field of a message."""
    position = 0
    while position < len(view):
        tag, position = _varint(view, position)
        if tag >> 32:
            raise ValueError("a tag of more than 32 bits")  # onnxruntime drops the bits above and reads another field
        wire = tag & 7
        if wire == 0:
            end = _varint(view, position)[1]
        elif wire == 2:
            size, position = _varint(view, position)
            end = position + size
        elif wire in (1, 5):
            end = position + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"unknown wire type {wire}")
        if end > len(view):
            raise ValueError("cut off")
        yield tag >> 3, view[position:end]
        position = end


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """Return the value that starts at a position, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("number too long")
