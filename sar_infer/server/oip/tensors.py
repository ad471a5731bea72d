"""Tensors of Open Inference Protocol v2, as JSON and as Triton's binary tensor data extension have them.

In JSON data is a list, flat or nested, row by row; BYTES are text. Binary, FP32 is little-endian floats, and BYTES are
elements that each begin with their length in four bytes, little-endian.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.server.problems import Problem

_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Input:
    """An input tensor; its data is still as it came, a JSON list or binary, and has not been held against its shape."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | memoryview

    @property
    def count(self) -> int:
        """Elements that the shape has room for."""
        return math.prod(self.shape)

    def floats(self) -> Floats:
        """FP32 data in its shape.

        Raises:
            Problem: not as much data as the shape says, or something that is not a finite number.
        """
        if isinstance(self.data, memoryview):
            self._check_count(len(self.data) / 4)
            values = np.frombuffer(self.data, "<f4")
        else:
            values = self._numbers(self._flat(self.data, {int, float}))
        if not np.isfinite(values).all():
            raise self.wrong("expected finite numbers")
        return values.astype(np.float32, copy=False).reshape(self.shape)

    def elements(self) -> list[bytes] | list[str]:
        """BYTES data in row order: bytes where it is binary, text where it is JSON.

        Raises:
            Problem: not as much data as the shape says, or something that is no text.
        """
        if isinstance(self.data, memoryview):
            return list(self._prefixed(self.data))
        texts: list[str] = self._flat(self.data, {str})
        return texts

    def wrong(self, what: str) -> Problem:
        """The problem that something is wrong with this input."""
        return Problem("invalid-request", f"input {self.name!r:.80}: {what}")

    def _check_count(self, found: float) -> None:
        if found != self.count:
            raise self.wrong(f"expected {self.count} elements for shape {list(self.shape)!s:.80}, got {found:g}")

    def _flat(self, data: list[Any], kinds: set[type]) -> list[Any]:
        """Return the elements of JSON data that is flat, or nested as the shape says; each level is held against it."""
        if data and type(data[0]) is list and len(self.shape) > 1:
            even = len(data) == self.shape[0]
            for size in self.shape[1:]:
                if not (even and all(type(item) is list and len(item) == size for item in data)):
                    raise self.wrong(f"expected data that is flat, or nested as shape {list(self.shape)!s:.80}")
                data = list(itertools.chain.from_iterable(data))
        self._check_count(len(data))
        if not set(map(type, data)) <= kinds:
            raise self.wrong(f"expected {'text' if str in kinds else 'numbers'} only, flat or nested as the shape")
        return data

    def _numbers(self, values: list[float]) -> Floats:
        try:
            with np.errstate(over="ignore"):
                return np.array(values, dtype=np.float32)
        except OverflowError:
            raise self.wrong("expected finite numbers") from None

    def _prefixed(self, data: memoryview) -> Iterator[bytes]:
        at = 0
        for _ in range(self.count):
            start = at + _LENGTH_BYTES
            at = start + int.from_bytes(data[at:start], "little")
            if max(start, at) > len(data):
                raise self.wrong(f"the data ends before {self.count} elements, each behind its length in 4 bytes")
            yield bytes(data[start:at])
        if at != len(data):
            raise self.wrong(f"{len(data) - at} bytes are left behind {self.count} elements")


@dataclass(frozen=True)
class Output:
    """An output tensor: float32 (N, …), or N rows of text of equal length; ``binary`` is how it is sent."""

    name: str
    values: Floats | Sequence[Sequence[bytes]]
    binary: bool

    def describe(self) -> tuple[dict[str, Any], bytes]:
        """What the answer's JSON says of it, and the binary data that follows, if any."""
        floats = isinstance(self.values, np.ndarray)
        item = {"name": self.name, "datatype": "FP32" if floats else "BYTES", "shape": self._shape()}
        if not self.binary:
            return {**item, "data": self._list()}, b""
        data = self._bytes()
        return {**item, "parameters": {"binary_data_size": len(data)}}, data

    def _shape(self) -> list[int]:
        return (
            list(self.values.shape) if isinstance(self.values, np.ndarray) else [len(self.values), len(self.values[0])]
        )

    def _list(self) -> list[Any]:
        if isinstance(self.values, np.ndarray):
            numbers: list[float] = self.values.reshape(-1).tolist()
            return numbers
        return [text.decode() for row in self.values for text in row]

    def _bytes(self) -> bytes:
        if isinstance(self.values, np.ndarray):
            return np.ascontiguousarray(self.values, dtype="<f4").tobytes()
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for row in self.values for text in row)
