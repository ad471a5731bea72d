"""Decode and encode a batch in one thread; an image that fails does not fail the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from sar_infer._arrays import Floats

T = TypeVar("T")
P = TypeVar("P")


@dataclass(frozen=True)
class Computed:
    """The unit row (1, D) or the error of each image of a batch, and seconds.

    Attributes:
        rows: A row or an error for each image.
        queue: Seconds that each image has waited for those before it.
        decode: Seconds of decoding, for each image.
        infer: Seconds of encoding, for each image: of all that were encoded with it.
    """

    rows: Sequence[Floats | Exception]
    queue: Sequence[float]
    decode: Sequence[float]
    infer: Sequence[float]


Encode = Callable[[Sequence[Floats]], Floats]
Compute = Callable[[Sequence[P], bool], Computed]
"""Is given images, and whether nothing else runs."""


class Encoding(Generic[P]):
    """Decodes and encodes batches; safe to share between threads if its two functions are.

    Args:
        decode: Returns the encoder's input (3, size, size) for an image.
        encode: Returns unit rows (N, D) for N inputs.
        most: Images that are encoded together at most.
        alone: Does as ``encode`` on all cores, for when nothing else runs; None if there is no such encoder.
        pool: Threads that decode the images of a batch side by side; None decodes them one after the other.
    """

    def __init__(
        self,
        decode: Callable[[P], Floats],
        encode: Encode,
        most: int,
        alone: Encode | None = None,
        pool: Executor | None = None,
    ) -> None:
        self._decode = decode
        self._encode = encode
        self._most = most
        self._alone = alone
        self._map = map if pool is None else pool.map

    def __call__(self, images: Sequence[P], alone: bool = False) -> Computed:
        """Return a row or an error for each image; ``alone`` says that nothing else runs."""
        encode = self._alone if alone and self._alone is not None else self._encode
        rows: list[Floats | Exception] = []
        queue: list[float] = []
        decode: list[float] = []
        infer: list[float] = []
        begun = time.perf_counter()
        for start in range(0, len(images), self._most):
            batch = images[start : start + self._most]
            queue += [time.perf_counter() - begun] * len(batch)
            decoded = [*self._map(self._timed, batch)]
            before = time.perf_counter()
            encoded = iter(_rows(encode, [pixels for pixels, _ in decoded if not isinstance(pixels, Exception)]))
            infer += [time.perf_counter() - before] * len(batch)
            rows += [pixels if isinstance(pixels, Exception) else next(encoded) for pixels, _ in decoded]
            decode += [seconds for _, seconds in decoded]
        return Computed(rows, queue, decode, infer)

    def _timed(self, image: P) -> tuple[Floats | Exception, float]:
        return timed(self._decode, image)


def _rows(encode: Encode, inputs: Sequence[Floats]) -> list[Floats | Exception]:
    """Return a row (1, D) or an error for each input."""
    if not inputs:
        return []
    try:
        rows = encode(inputs)
        if len(rows) != len(inputs):
            raise RuntimeError(f"{len(inputs)} images gave {len(rows)} rows")
        if len(inputs) > 1 and not np.isfinite(rows).all():  # INT8 graphs share ranges: one image spoils all
            raise ArithmeticError("a row is not finite")
    except Exception as error:  # the exceptions of onnxruntime share no base class
        if len(inputs) == 1:
            return [error]
        half = len(inputs) // 2  # perhaps out of memory: smaller batches may pass, and a bad image fails alone
        return [*_rows(encode, inputs[:half]), *_rows(encode, inputs[half:])]
    return [rows[i : i + 1] for i in range(len(rows))]


def timed(function: Callable[[P], T], argument: P) -> tuple[T | Exception, float]:
    """Return what a function returns or raises, and the seconds it took."""
    start = time.perf_counter()
    try:
        value: T | Exception = function(argument)
    except Exception as error:
        value = error
    return value, time.perf_counter() - start
