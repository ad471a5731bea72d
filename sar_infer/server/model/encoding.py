"""Decode and encode a batch in one thread; an image that fails does not fail the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
        alone: Does the same on all cores, for when nothing else runs; None if there is no such encoder.
    """

    def __init__(self, decode: Callable[[P], Floats], encode: Encode, alone: Encode | None = None) -> None:
        self.decode = decode
        self.encode = encode
        self.alone = alone

    def __call__(self, images: Sequence[P], alone: bool = False, most: int | None = None) -> Computed:
        """Return a row or an error for each image.

        Args:
            images: The images.
            alone: Whether nothing else runs.
            most: Images that are encoded together at most; None: all of them.
        """
        encode = self.alone if alone and self.alone is not None else self.encode
        most = most or max(1, len(images))
        rows: list[Floats | Exception] = []
        queue: list[float] = []
        decode: list[float] = []
        infer: list[float] = []
        begun = time.perf_counter()
        for start in range(0, len(images), most):
            batch = images[start : start + most]
            queue += [time.perf_counter() - begun] * len(batch)
            decoded = [timed(self.decode, image) for image in batch]
            before = time.perf_counter()
            encoded = iter(_rows(encode, [pixels for pixels, _ in decoded if not isinstance(pixels, Exception)]))
            infer += [time.perf_counter() - before] * len(batch)
            rows += [pixels if isinstance(pixels, Exception) else next(encoded) for pixels, _ in decoded]
            decode += [seconds for _, seconds in decoded]
        return Computed(rows, queue, decode, infer)


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
