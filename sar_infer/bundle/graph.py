"""The signature of an ONNX file, read without onnxruntime: its inputs, its outputs, and any data outside the file.

ONNX is protobuf. Only the fields named here are followed; everything else, above all the weights, is skipped, so that
a file of any size takes milliseconds. Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sar_infer.errors import BundleError

FLOAT, INT64 = 1, 7
"""``TensorProto.DataType``"""

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
_GRAPH, _INPUT, _OUTPUT = 7, 11, 12


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: its element type, and the size of each axis, None if it is free."""

    kind: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class GraphSignature:
    """The inputs and outputs of a graph, by name."""

    inputs: dict[str, Port]
    outputs: dict[str, Port]


def read_signature(path: Path) -> GraphSignature:
    """Read an ONNX file's inputs and outputs.

    Raises:
        BundleError: It is not an ONNX file, or has weights outside itself.
    """
    try:
        with path.open("rb") as stream:
            view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        return _signature(view, path)
    except (ValueError, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: not a readable ONNX file ({error})") from None


def _signature(view: memoryview, path: Path) -> GraphSignature:
    if _points_outside(view, "model"):
        raise BundleError(f"{path}: refers to data outside the file; a bundle's graphs must hold all their weights")
    inputs: dict[str, Port] = {}
    outputs: dict[str, Port] = {}
    for number, graph in _fields(view):
        if number == _GRAPH:
            for kind, value in _fields(graph):
                if kind in (_INPUT, _OUTPUT):
                    name, port = _port(value)
                    (inputs if kind == _INPUT else outputs)[name] = port
    if not inputs or not outputs:
        raise ValueError("no inputs or outputs")
    return GraphSignature(inputs, outputs)


def _points_outside(view: memoryview, message: str) -> bool:
    children = _CHILDREN[message]
    for number, value in _fields(view):
        if message == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and _varint(value, 0)[0])):
            return True
        if number in children and _points_outside(value, children[number]):
            return True
    return False


def _port(view: memoryview) -> tuple[str, Port]:
    """Read a ValueInfoProto.

    Fields: name = 1, type = 2 → tensor_type = 1 → elem_type = 1, shape = 2 → dim = 1 → dim_value = 1.
    """
    name = bytes(_first(view, 1)).decode("utf-8")
    tensor = _first(_first(view, 2), 1)
    axes = [dim for number, dim in _fields(_first(tensor, 2)) if number == 1]
    shape = tuple(_varint(_first(axis, 1), 0)[0] if _first(axis, 1) else None for axis in axes)
    kind = _first(tensor, 1)
    return name, Port(_varint(kind, 0)[0] if kind else 0, shape)


def _first(view: memoryview, number: int) -> memoryview:
    """Return the first field with a number, empty if there is none."""
    return next((value for found, value in _fields(view) if found == number), view[:0])


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and raw value of each field of a message."""
    position = 0
    while position < len(view):
        tag, position = _varint(view, position)
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
