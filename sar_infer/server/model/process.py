"""A worker process of the server: it decodes and encodes what the front sends, and knows neither names nor requests."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import Preprocess
from sar_infer.encoders.encoders import ImageEncoder, batch_of
from sar_infer.encoders.sessions import Device, give_back_memory
from sar_infer.images.prefetch import decode_image
from sar_infer.processes.signals import deadline
from sar_infer.server.model.encoding import Decoded, Result, Task, compute, decode
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.settings import Limits

_SLACK = 128 * 2**20
"""Bytes that decoding may take above its price: an allocator reserves more than it uses."""

_NICE = 5
"""How much a worker gives way to the front, which else waits for its turn while a core has nothing to do."""


@dataclass(frozen=True)
class Model:
    """How a process prepares images, and the encoder that it runs, as plain values.

    Attributes:
        graph: The encoder's file.
        sha256: Its digest, checked when it is opened: the bundle's folder may have been replaced by then.
        embed_dim: D, the length of a row.
        device: Where to encode.
        sizes: Threads and batches of the encoder.
        probe: The self-test image (size, size, 3); a batch of it is encoded at the start.
        trial_seconds: The most seconds for that.
        preprocess: How to prepare an image.
        limits: What images are accepted. One that takes longer to decode than they allow ends the process.
    """

    graph: str
    sha256: str
    embed_dim: int
    device: Device
    sizes: Sizes
    probe: npt.NDArray[np.uint8]
    trial_seconds: float
    preprocess: Preprocess
    limits: Limits


Begun = tuple[str, Floats]
"""The answer of a worker that is ready: its execution provider, and its row (1, D) for the self-test image."""


class Process:
    """The work of the process; called with a batch and whether nothing else runs, or with None for ``Begun``."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._encoder = functools.cache(self._opened)
        encoder, size = self._encoder(model.sizes.threads), model.sizes.max_batch
        probe = decode_image(model.probe, model.preprocess)
        rows = encoder.encode(batch_of([probe] * size), model.trial_seconds)
        self._begun = encoder.open(), rows[:1]
        give_back_memory()

    def __call__(self, tasks: Sequence[Task] | None, alone: bool = False) -> Begun | list[Result]:
        """Return the results of a batch. An image that takes too long to decode ends this process."""
        if tasks is None:
            return self._begun
        sizes = self._model.sizes
        encoder = self._encoder(sizes.alone if alone and sizes.alone else sizes.threads)
        return compute(tasks, self._decode, lambda inputs: encoder.encode(batch_of(inputs)), sizes.max_batch)

    def _opened(self, threads: int) -> ImageEncoder:
        """Open an encoder of so many threads, and give back what that frees to the system."""
        model = self._model
        path = Path(model.graph)
        encoder = ImageEncoder(path, model.embed_dim, model.device, threads, spin=False, sha256=model.sha256)
        encoder.open()
        give_back_memory()
        return encoder

    def _decode(self, task: Task) -> Decoded:
        limits = self._model.limits
        with deadline(limits.image_seconds), _memory(task.memory):
            return decode(task, self._model.preprocess, limits)


def begin(model: Model) -> Process:
    """Open the encoder in a new process.

    Raises:
        BundleError: onnxruntime does not accept the graph, or it takes too long.
        DeviceError: the device is not available.
    """
    if hasattr(signal, "SIGTERM"):  # a service manager may send it to all processes; the front decides
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="PIL")  # what matters about an image becomes its error
    process = Process(model)
    with contextlib.suppress(AttributeError, OSError):  # Windows has no such call, and a sandbox may not allow it
        os.nice(_NICE)
    return process


@functools.cache
def _statm() -> int | None:
    """Return a descriptor of the file that says how much this process has allocated; None if there is no such file.

    It stays open. Only Linux counts in a way that serves.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None


@contextlib.contextmanager
def _memory(most: int) -> Iterator[None]:
    """Let this process allocate no more than so many bytes and some slack until the block ends; 0 sets no limit."""
    statm = _statm() if most else None
    if statm is None:
        yield
        return
    import resource

    now = int(os.pread(statm, 128, 0).split()[5]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = now + most + most // 4 + _SLACK
    if before[1] != resource.RLIM_INFINITY:
        limit = min(limit, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
