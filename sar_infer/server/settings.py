"""What a server is told once, at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sar_infer.encoders.precision import PrecisionChoice
from sar_infer.encoders.sessions import Device
from sar_infer.images.load import MAX_PIXELS

SAFE_FORMATS = ("JPEG", "PNG", "WEBP")
"""Decoders with a small and much tested surface; more of ``images.formats.FORMATS`` on request."""


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes:
        body_bytes: Size of a request body, counted while it is read.
        body_seconds: Time for the body to arrive.
        seconds: Time for the whole request.
        images: Pictures in one request.
        pixels: Width times height of a picture, read from its header.
        formats: Picture formats, told by content.
        classes: Class names in one request.
        queue: Pictures that may be in the server at once, being decoded, waiting or running.
    """

    body_bytes: int = 10 * 2**20
    body_seconds: float = 10
    seconds: float = 30
    images: int = 32
    pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = SAFE_FORMATS
    classes: int = 1000
    queue: int = 64


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        bundle: The bundle's folder, opened again by a reload; None takes the one that ships with the package.
        state: Folder of the bank file that holds classes added at run time; None serves the bundle's bank as it is.
        key: What ``Authorization: Bearer`` must carry; None asks for nothing and allows no change.
        device: Where the encoders run.
        precision: ``fp32``, or smaller graphs of the bundle.
        threads: Threads of one batch. Of this and the next three, None is chosen by ``sizing``.
        workers: Batches that run at once.
        max_batch: Pictures that run together at most.
        decoders: Threads that decode pictures ahead of the workers; 0 leaves it to them.
        decode_memory: Bytes that images may take while they are decoded; None is what the process may have and the
            model leaves.
        metrics: Serve ``/metrics``.
        pages: Serve ``/ui`` and ``/docs``.
        limits: What a request may cost.
    """

    bundle: Path | None = None
    state: Path | None = None
    key: str | None = field(default=None, repr=False)
    device: Device = "auto"
    precision: PrecisionChoice = "fp32"
    threads: int | None = None
    workers: int | None = None
    max_batch: int | None = None
    decoders: int | None = None
    decode_memory: int | None = None
    metrics: bool = True
    pages: bool = True
    limits: Limits = Limits()

    @property
    def writable(self) -> bool:
        """Whether classes can be added and removed."""
        return self.key is not None and self.state is not None
