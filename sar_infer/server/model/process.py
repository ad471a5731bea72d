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
from sar_infer.server.model.encoding import Decoded, Encode, Encoding, Result, Task, decode

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
        threads: Threads of the encoder.
        alone: Threads of a second one, opened when it is first used, for an image beside which nothing runs; 0: none.
        batch: Images that are encoded together at most.
        probe: The self-test image (size, size, 3); a batch of it is encoded at the start.
        trial_seconds: The most seconds for that.
        preprocess: How to prepare an image.
        formats: Image formats that are accepted.
        pixels: The most pixels of an image.
        image_seconds: The most seconds for decoding an image; then the process ends.
    """

    graph: str
    sha256: str
    embed_dim: int
    device: Device
    threads: int
    alone: int
    batch: int
    probe: npt.NDArray[np.uint8]
    trial_seconds: float
    preprocess: Preprocess
    formats: tuple[str, ...]
    pixels: int
    image_seconds: float


@dataclass(frozen=True)
class Begun:
    """The answer of a worker that is ready: its execution provider, and its row (1, D) for the self-test image."""

    provider: str
    row: Floats


class Process:
    """The work of the process; called with a batch and whether nothing else runs, or with None for ``Begun``."""

    def __init__(self, model: Model) -> None:
        self._model = model
        encoder, alone = (
            ImageEncoder(Path(model.graph), model.embed_dim, model.device, threads, spin=False, sha256=model.sha256)
            for threads in (model.threads, model.alone)
        )
        provider = encoder.open()
        pixels = decode_image(model.probe, model.preprocess)
        rows = encoder.encode(batch_of([pixels] * model.batch), model.trial_seconds)
        self._begun = Begun(provider, rows[:1])
        give_back_memory()
        second = _opened_late(alone) if model.alone else None
        self._compute = Encoding(self._decode, lambda inputs: encoder.encode(batch_of(inputs)), model.batch, second)

    def __call__(self, tasks: Sequence[Task] | None, alone: bool = False) -> Begun | list[Result]:
        """Return the results of a batch. An image that takes too long to decode ends this process."""
        return self._begun if tasks is None else self._compute(tasks, alone)

    def _decode(self, task: Task) -> Decoded:
        model = self._model
        with deadline(model.image_seconds), _memory(task.memory):
            return decode(task, model.preprocess, model.formats, model.pixels)


def _opened_late(encoder: ImageEncoder) -> Encode:
    """Return what encodes by an encoder that is opened at its first use; what that frees goes back to the system."""
    opened = False

    def encode(inputs: Sequence[Floats]) -> Floats:
        nonlocal opened
        if not opened:
            encoder.open()
            give_back_memory()
            opened = True
        return encoder.encode(batch_of(inputs))

    return encode


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
    if hasattr(os, "nice"):
        os.nice(_NICE)
    return process


@functools.cache
def _statm() -> int:
    """Return a descriptor of the file that says how much this process has allocated; it stays open."""
    return os.open("/proc/self/statm", os.O_RDONLY)


@contextlib.contextmanager
def _memory(most: int) -> Iterator[None]:
    """Let this process allocate no more than so many bytes and some slack until the block ends; 0 sets no limit.

    Only Linux counts them in a way that serves.
    """
    if not most or sys.platform != "linux":
        yield
        return
    import resource

    now = int(os.pread(_statm(), 128, 0).split()[5]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = now + most + most // 4 + _SLACK
    if before[1] != resource.RLIM_INFINITY:
        limit = min(limit, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
