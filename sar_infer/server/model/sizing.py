"""How many batches run at once, with how many threads and pictures each: measured or reckoned where nobody says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sar_infer._arrays import Floats
from sar_infer.encoders.sessions import usable_cores
from sar_infer.server.settings import Settings

_LARGEST = {"CPUExecutionProvider": 8}
_LARGEST_ELSEWHERE = 32
_WORTH = 0.95
_MOST_DECODERS = 8
"""A picture may take 400 MB while it is decoded."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of an engine.

    Attributes:
        workers: Batches that run at once.
        max_batch: Pictures of a batch at most.
        decoders: Threads that decode ahead of the workers; 0 leaves decoding to them.
    """

    workers: int
    max_batch: int
    decoders: int


def workers_and_threads(settings: Settings) -> tuple[int, int]:
    """Batches at once, and threads of each, so that together they fill the cores.

    One thread a batch wastes none of the machine; a quarter of the cores bounds what a lone picture waits for.
    """
    cores = usable_cores()
    workers = settings.workers or min(cores, max(2, cores // 4))
    return workers, settings.threads or max(1, cores // workers)


def measured(settings: Settings, provider: str, encode: Callable[[Sequence[Floats]], Floats], pixels: Floats) -> Sizes:
    """Sizes for an encoder that is open: the batch is doubled as long as that makes a picture 5 % cheaper.

    On a CPU workers decode for themselves; elsewhere threads decode ahead, so that the device has no pause.

    Args:
        settings: What was asked for.
        provider: What the encoder runs on.
        encode: The encoder.
        pixels: A picture's input (3, size, size).
    """
    if provider == "CPUExecutionProvider":
        workers, decoders = workers_and_threads(settings)[0], 0
    else:  # two workers, so that one batch is made ready while another runs
        workers, decoders = settings.workers or 2, min(usable_cores(), _MOST_DECODERS)
    batch = settings.max_batch
    if batch is None:
        batch, largest = 1, _LARGEST.get(provider, _LARGEST_ELSEWHERE)
        each = _seconds(encode, [pixels])
        while batch < largest and (doubled := _seconds(encode, [pixels] * (2 * batch))) < _WORTH * each:
            batch, each = 2 * batch, doubled
    return Sizes(workers, batch, decoders if settings.decoders is None else settings.decoders)


def _seconds(encode: Callable[[Sequence[Floats]], Floats], batch: Sequence[Floats]) -> float:
    """Seconds a picture, the better of two runs."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        encode(batch)
        times.append(time.perf_counter() - start)
    return min(times) / len(batch)
