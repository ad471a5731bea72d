"""A photo of 12 million pixels from file to pixels, decoded in full and at the smallest scale that a margin allows."""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path

from PIL import Image

from sar_infer.bundle.manifest import Preprocess
from sar_infer.images.prefetch import decode_image

MARGIN = 2.0
SPEC = Preprocess(256, "shortest", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""As ``sar-mini`` takes them."""
_RUNS = 15


def large_jpeg(source: Path, target: Path) -> Path:
    """A real photo enlarged, as a JPEG of quality 90."""
    with Image.open(source) as opened:
        image = opened.convert("RGB")
    factor = (12e6 / (image.width * image.height)) ** 0.5
    size = (round(image.width * factor), round(image.height * factor))
    image.resize(size, Image.Resampling.LANCZOS).save(target, "JPEG", quality=90)
    return target


def decoding_ms(photo: Path, spec: Preprocess) -> dict[str, float]:
    """Milliseconds, medians of runs that take turns: ``full``, ``reduced``."""
    specs = {"full": spec, "reduced": dataclasses.replace(spec, jpeg_margin=MARGIN)}
    times: dict[str, list[float]] = {name: [] for name in specs}
    for _ in range(_RUNS):
        for name, found in times.items():
            start = time.perf_counter()
            decode_image(photo, specs[name])
            found.append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}
