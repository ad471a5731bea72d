"""The settings and limits that a server gets when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sar_infer.encoders.precision import PrecisionChoice
from sar_infer.encoders.sessions import Device
from sar_infer.images.formats import IMAGE_SECONDS
from sar_infer.images.load import MAX_PIXELS

SAFE_FORMATS = ("JPEG", "PNG", "WEBP")
"""Formats whose decoders are small and well tested; others of ``images.formats.FORMATS`` on request."""


@dataclass(frozen=True)
class Limits:
    """The limits of requests.

    Attributes:
        body_bytes: Size of a request body, counted while it is read.
        body_seconds: Time for the body to arrive.
        seconds: Time for the whole request.
        images: Images in one request.
        pixels: Width times height of an image, read from its header.
        formats: Image formats, recognised by content.
        classes: Class names in one request.
        queue: Images that may be in the server at once, being decoded, waiting or running.
        image_seconds: Time to decode one image in a worker process; a batch gets twice as much, and 10 seconds.
    """

    body_bytes: int = 10 * 2**20
    body_seconds: float = 10
    seconds: float = 30
    images: int = 32
    pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = SAFE_FORMATS
    classes: int = 1000
    queue: int = 64
    image_seconds: float = IMAGE_SECONDS


@dataclass(frozen=True)
class Settings:
    """The settings of a server.

    Attributes:
        bundle: The bundle's folder or place on a hub, opened again by a reload; None takes the one that ships.
        bank: The bank file, which may be missing until the first change; None serves the bundle's bank as it is.
        banks: Folder of banks that are served by name; None serves only ``bank``.
        banks_memory: Bytes of these in memory; a quarter of the server's by default.
        key: Required in ``Authorization: Bearer``; of several lines each is a key, so that one can be replaced by the
            next. None requires nothing and allows no change.
        hosts: Names by which a server without a key may be asked, next to local names and addresses; ``*`` is any.
        origins: Origins whose pages may read answers (CORS), as in the header ``Origin``; ``*`` is any.
        device: Where the encoders run.
        precision: ``fp32``, or smaller graphs of the bundle.
        threads: Threads of one batch. ``sizing`` chooses this and the next two if they are None.
        workers: Processes that decode and encode; with 0 one process does all.
        max_batch: Images that run together at most.
        metrics: Serve ``/metrics``.
        pages: Serve ``/ui``.
        limits: The limits of requests.
    """

    bundle: str | Path | None = None
    bank: Path | None = None
    banks: Path | None = None
    banks_memory: int | None = None
    key: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    device: Device = "auto"
    precision: PrecisionChoice = "fp32"
    threads: int | None = None
    workers: int | None = 0
    max_batch: int | None = None
    metrics: bool = True
    pages: bool = True
    limits: Limits = Limits()

    @property
    def writable(self) -> bool:
        """Tell whether classes can be added and removed."""
        return self.key is not None and (self.bank is not None or self.banks is not None)
