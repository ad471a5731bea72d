"""Decode and encode a batch in one thread; an image that fails does not fail the others."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import Preprocess
from sar_infer.errors import ImageError
from sar_infer.images.load import TOO_LITTLE_MEMORY
from sar_infer.images.prefetch import decode_image, decode_photo
from sar_infer.server.settings import Limits

Pixels = npt.NDArray[np.uint8] | Floats
"""Pixels (H, W, 3) of an image; or the encoder's own input (3, size, size), float32."""
Decoded = tuple[Floats, bytes]
"""The encoder's input (3, size, size), and the digest of the image's pixels if the task asks for it."""
Encode = Callable[[Sequence[Floats]], Floats]
"""Returns unit rows (N, D) for N inputs."""


class Task(NamedTuple):
    """One image to compute.

    Attributes:
        image: Encoded bytes, or pixels.
        memory: Bytes that decoding may take; 0 if there is nothing to decode.
        digest: Return the digest of its pixels too (see ``prefetch.decode_photo``).
    """

    image: bytes | Pixels
    memory: int = 0
    digest: bool = False


class Result(NamedTuple):
    """The result of one image.

    Attributes:
        row: Its unit row (1, D), or the error.
        digest: The digest of its pixels, if it was asked for.
        queue: Seconds that it waited, also for those before it in its batch.
        decode: Seconds of decoding.
        infer: Seconds of encoding, with all that were encoded with it.
    """

    row: Floats | Exception
    digest: bytes = b""
    queue: float = 0.0
    decode: float = 0.0
    infer: float = 0.0


def compute(
    tasks: Sequence[Task],
    decode: Callable[[Task], Decoded],
    encode: Encode,
    most: int,
    decoders: Executor | None = None,
) -> list[Result]:
    """Return the result of each task of a batch.

    Args:
        tasks: The batch.
        decode: Decodes the image of a task.
        encode: Encodes inputs.
        most: Images that are encoded together at most.
        decoders: Threads that decode images side by side; None decodes them one after the other.
    """
    decode_all = map if decoders is None else decoders.map
    results: list[Result] = []
    begun = time.perf_counter()
    for start in range(0, len(tasks), most):
        queue = time.perf_counter() - begun
        decoded = [*decode_all(functools.partial(_timed, decode), tasks[start : start + most])]
        before = time.perf_counter()
        rows = iter(_rows(encode, [one[0] for one, _ in decoded if not isinstance(one, Exception)]))
        infer = time.perf_counter() - before
        for one, seconds in decoded:
            row, digest = (one, b"") if isinstance(one, Exception) else (next(rows), one[1])
            results.append(Result(row, digest, queue, seconds, infer))
    return results


def _timed(decode: Callable[[Task], Decoded], task: Task) -> tuple[Decoded | Exception, float]:
    start = time.perf_counter()
    try:
        decoded: Decoded | Exception = decode(task)
    except Exception as error:
        decoded = error
    return decoded, time.perf_counter() - start


def decode(task: Task, spec: Preprocess, limits: Limits) -> Decoded:
    """Decode the image of a task.

    Args:
        task: The encoder's own input is taken as it is.
        spec: How to prepare an image.
        limits: Formats and sizes of images that are accepted.

    Raises:
        ImageError: it cannot be read.
    """
    image: Any = task.image
    if not isinstance(image, bytes) and image.dtype == np.float32:
        return image, b""
    try:
        if task.digest:
            return decode_photo(image, spec, limits.formats, limits.pixels)
        return decode_image(image, spec, limits.formats, limits.pixels), b""
    except MemoryError:
        raise ImageError(TOO_LITTLE_MEMORY, "size") from None


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
