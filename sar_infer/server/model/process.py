"""A worker process of the server: it decodes and encodes what the front sends, and knows neither names nor requests."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import Preprocess
from sar_infer.encoders.encoders import ImageEncoder
from sar_infer.encoders.sessions import Device, give_back_memory
from sar_infer.errors import ImageError
from sar_infer.images.load import TOO_LITTLE_MEMORY
from sar_infer.images.prefetch import decode_image, decode_photo
from sar_infer.processes.signals import deadline
from sar_infer.server.model.encoding import Computed, Encode, Encoding

_SLACK = 128 * 2**20
"""Bytes that decoding may take above its price: an allocator reserves more than it uses."""


@dataclass(frozen=True)
class Graph:
    """An image encoder, as plain values.

    Attributes:
        path: The file to open.
        sha256: Its digest, checked when it is opened: the bundle's folder may have been replaced by then.
        embed_dim: D, the length of a row.
        device: Where to encode.
        threads: Threads of the encoder.
        alone: Threads of a second one, opened when it is first used, for an image beside which nothing runs; 0: none.
        batch: Images that are encoded together at most.
        probe: The self-test image (size, size, 3); a batch of it is encoded at the start.
        trial_seconds: The most seconds for that.
    """

    path: str
    sha256: str
    embed_dim: int
    device: Device
    threads: int
    alone: int
    batch: int
    probe: npt.NDArray[np.uint8]
    trial_seconds: float


@dataclass(frozen=True)
class Model:
    """How a process prepares images, and the encoder that it runs, as plain values.

    Attributes:
        preprocess: How to prepare an image.
        formats: Image formats that are accepted.
        pixels: The most pixels of an image.
        image_seconds: The most seconds for decoding an image; then the process ends.
        graph: The encoder.
    """

    preprocess: Preprocess
    formats: tuple[str, ...]
    pixels: int
    image_seconds: float
    graph: Graph


@dataclass(frozen=True)
class Task:
    """One image: encoded bytes, pixels (H, W, 3), or the encoder's own input (3, size, size), float32.

    Attributes:
        image: The image.
        memory: Bytes that decoding may take.
        digest: Return the digest of its pixels too.
    """

    image: bytes | npt.NDArray[np.uint8] | Floats
    memory: int = 0
    digest: bool = False


@dataclass(frozen=True)
class Begun:
    """The answer of a worker that is ready: its execution provider, and its row (1, D) for the self-test image."""

    provider: str
    row: Floats


@dataclass(frozen=True)
class Answer:
    """Rows or errors of a batch, and the digests of those images that were asked for theirs, by position."""

    computed: Computed
    digests: dict[int, bytes]


class Process:
    """The work of the process; called with a batch and whether nothing else runs, or with None for ``Begun``."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._digests: dict[int, bytes] = {}
        graph = model.graph
        encoder, alone = (
            ImageEncoder(Path(graph.path), graph.embed_dim, graph.device, threads, spin=False, sha256=graph.sha256)
            for threads in (graph.threads, graph.alone)
        )
        provider = encoder.open()
        pixels = decode_image(graph.probe, model.preprocess)
        rows = encoder.encode(np.stack([pixels] * graph.batch), graph.trial_seconds)
        self._begun = Begun(provider, rows[:1])
        give_back_memory()
        self._compute = Encoding(
            self._decoded, stacked(encoder), graph.batch, _opened_late(alone) if graph.alone else None
        )

    def __call__(self, tasks: Sequence[Task] | None, alone: bool = False) -> Begun | Answer:
        """Return the rows of a batch. An image that takes too long to decode ends this process."""
        if tasks is None:
            return self._begun
        self._digests = {}
        computed = self._compute(list(enumerate(tasks)), alone)
        return Answer(computed, self._digests)

    def _decoded(self, numbered: tuple[int, Task]) -> Floats:
        number, task = numbered
        image: Any = task.image
        pixels: Floats
        if not isinstance(image, bytes) and image.dtype == np.float32:
            pixels = image.astype(np.float32, copy=False)
            return pixels
        model = self._model
        try:
            with deadline(model.image_seconds), _memory(task.memory):
                if task.digest:
                    pixels, self._digests[number] = decode_photo(image, model.preprocess, model.formats, model.pixels)
                else:
                    pixels = decode_image(image, model.preprocess, model.formats, model.pixels)
                return pixels
        except MemoryError:
            raise ImageError(TOO_LITTLE_MEMORY, "size") from None


def stacked(encoder: ImageEncoder, seconds: float | None = None) -> Encode:
    """Return the function that encodes a list of inputs (3, size, size), within so many seconds."""
    return lambda batch: encoder.encode(np.stack(batch), seconds)


def _opened_late(encoder: ImageEncoder) -> Encode:
    """Return ``stacked`` for an encoder that is opened at its first use; what opening frees goes back to the system."""
    encode, opened = stacked(encoder), False

    def opening(batch: Sequence[Floats]) -> Floats:
        nonlocal opened
        if not opened:
            encoder.open()
            give_back_memory()
            opened = True
        return encode(batch)

    return opening


def begin(model: Model) -> Process:
    """Open the encoder in a new process.

    Raises:
        BundleError: onnxruntime does not accept the graph, or it takes too long.
        DeviceError: the device is not available.
    """
    if hasattr(signal, "SIGTERM"):  # a service manager may send it to all processes; the front decides
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="PIL")  # what matters about an image becomes its error
    return Process(model)


@contextlib.contextmanager
def _memory(most: int) -> Iterator[None]:
    """Let this process allocate no more than so many bytes and some slack until the block ends; 0 sets no limit.

    Only Linux counts them in a way that serves.
    """
    if not most or sys.platform != "linux":
        yield
        return
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = now + most + most // 4 + _SLACK
    if before[1] != resource.RLIM_INFINITY:
        limit = min(limit, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
