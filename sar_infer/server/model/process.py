"""Images are decoded and encoded, in a worker process or in threads of the server's own."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import Manifest, Preprocess
from sar_infer.encoders.encoders import ImageEncoder, batch_of
from sar_infer.encoders.self_test import self_test_pixels
from sar_infer.encoders.sessions import Device, give_back_memory
from sar_infer.errors import ImageError
from sar_infer.images.load import TOO_LITTLE_MEMORY
from sar_infer.images.prefetch import decode_image, decode_photo
from sar_infer.images.preprocess import images_together
from sar_infer.processes.signals import deadline
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.settings import Limits

_LEAST_MEMORY = 64 * 2**20
"""Bytes for an image, however little memory a worker may have."""
_NICE = 5
"""How much a worker gives way to the front, which else waits for its turn while a core has nothing to do: 2.5 % of the
cores' time (ADR 10)."""
Pixels = npt.NDArray[np.uint8]
"""Pixels (H, W, 3) of an image."""
Encode = Callable[[Sequence[Floats], bool], Floats]
"""Returns unit rows (N, D) for inputs (3, size, size) or crops (K, 3, size, size); True: nothing else runs."""


class Task(NamedTuple):
    """One image to compute: encoded bytes, or pixels; whether to return the digest of its pixels too, or all crops."""

    image: bytes | Pixels
    digest: bool = False
    several: bool = False


class Result(NamedTuple):
    """The result of one image.

    Attributes:
        row: Its unit row (1, D), those of its crops (5, D), or the error.
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


class Computer:
    """Decodes and encodes batches, in a worker process or in a thread of the server's own.

    Args:
        spec: How to prepare an image.
        limits: What images are accepted.
        encode: Encodes inputs.
        most: Images that are encoded together at most.
        each: Decodes the images of a batch, as ``map`` does one after the other.
        timed: End this process if an image takes longer to decode than the limits allow.

    Attributes:
        begun: The execution provider, and the row (1, D) of the self-test image.
    """

    begun: tuple[str, Floats]

    def __init__(
        self,
        spec: Preprocess,
        limits: Limits,
        encode: Encode,
        most: int,
        each: Callable[..., Iterable[Result]] = map,
        *,
        timed: bool = False,
    ) -> None:
        self._spec, self._limits, self._encode, self._most, self._each = spec, limits, encode, most, each
        self._deadline = deadline if timed else contextlib.nullcontext

    def __call__(self, tasks: Sequence[Task], alone: bool = False) -> list[Result]:
        """Return the result of each image of a batch; one that fails does not fail the others."""
        results: list[Result] = []
        begun = time.perf_counter()
        most = images_together(self._most, several=any(task.several for task in tasks))
        for start in range(0, len(tasks), most):
            queue = time.perf_counter() - begun
            decoded = [*self._each(self._decoded, tasks[start : start + most])]
            before = time.perf_counter()
            rows = iter(self._rows([one.row for one in decoded if not isinstance(one.row, Exception)], alone))
            infer = time.perf_counter() - before
            for one in decoded:
                row = one.row if isinstance(one.row, Exception) else next(rows)
                results.append(one._replace(row=row, queue=queue, infer=infer))
        return results

    def _decoded(self, task: Task) -> Result:
        """Return the encoder's input for an image or its crops, where its embedding will be, or the error."""
        row: Floats | Exception
        start, digest = time.perf_counter(), b""
        accepted = self._spec, self._limits.formats, self._limits.pixels
        try:
            with self._deadline(self._limits.image_seconds):
                if task.digest:
                    row, digest = decode_photo(task.image, *accepted)
                else:
                    row = decode_image(task.image, *accepted, several=task.several)
        except MemoryError:
            row = ImageError(TOO_LITTLE_MEMORY, "size")
        except ImageError as error:
            row = ImageError(str(error), error.kind)  # anew: the frames of its traceback hold the decoder's memory
        except Exception as error:
            row = error
        return Result(row, digest, decode=time.perf_counter() - start)

    def _rows(self, inputs: Sequence[Floats], alone: bool) -> list[Floats | Exception]:
        """Return a row (1, D), rows of crops or an error for each input."""
        if not inputs:
            return []
        try:
            rows = self._encode(inputs, alone)
            if len(inputs) > 1 and not np.isfinite(rows).all():  # INT8 graphs share ranges: one image spoils all
                raise ArithmeticError("a row is not finite")
        except Exception as error:  # the exceptions of onnxruntime share no base class
            if len(inputs) == 1:
                return [error]
            half = len(inputs) // 2  # perhaps out of memory: smaller batches may pass, and a bad image fails by itself
            return [*self._rows(inputs[:half], alone), *self._rows(inputs[half:], alone)]
        ends = np.cumsum([len(one) if one.ndim == 4 else 1 for one in inputs])
        return [*np.split(rows, ends[:-1])]


def begin(
    graph: Path,
    manifest: Manifest,
    device: Device,
    precision: str,
    sizes: Sizes,
    limits: Limits,
    trial_seconds: float,
) -> Computer:
    """Open the encoder in a new process, and return what computes there.

    Args:
        graph: The encoder's file. Its digest is checked when it is opened: the bundle may have been replaced by then.
        manifest: Of the bundle.
        device: Where to encode.
        precision: That of ``Choice``.
        sizes: Threads, batches and memory.
        limits: What images are accepted. One that takes longer to decode than they allow ends the process.
        trial_seconds: The most seconds for encoding a batch of the self-test image at the start.

    Raises:
        BundleError: onnxruntime does not accept the graph, or it takes too long.
        DeviceError: the device is not available.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager may send it to all processes; the front decides
    warnings.filterwarnings("ignore", module="PIL")  # what matters about an image becomes its error

    @functools.cache
    def opened(threads: int) -> ImageEncoder:
        """Open an encoder with a number of threads, and return the freed memory to the system."""
        sha256 = manifest.files[graph.name].sha256
        encoder = ImageEncoder(graph, manifest.embed_dim, device, threads, False, sha256, precision)
        encoder.open()
        give_back_memory()
        return encoder

    def encode(inputs: Sequence[Floats], alone: bool) -> Floats:
        return opened(sizes.alone if alone and sizes.alone else sizes.threads).encode(batch_of(inputs))

    computer = Computer(manifest.preprocess, limits, encode, sizes.max_batch, timed=True)
    encoder = opened(sizes.threads)
    probes = batch_of([self_test_pixels(manifest.preprocess, manifest.self_test.seed)] * sizes.max_batch)
    computer.begun = encoder.open(), encoder.encode(probes, trial_seconds)[:1]
    give_back_memory()
    if sizes.memory and sys.platform == "linux":  # elsewhere the limit does not count what is mapped
        _limit_memory(sizes.memory)
    with contextlib.suppress(AttributeError, OSError):  # Windows has no such call, and a sandbox may not allow it
        os.nice(_NICE)
    return computer


def _limit_memory(most: int) -> None:
    """Limit the memory of this process, but leave enough for a small image in any case."""
    import resource

    pages = 0
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    most = max(most, pages * os.sysconf("SC_PAGE_SIZE") + _LEAST_MEMORY)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
