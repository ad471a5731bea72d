"""Adding four photos to a class of a bank with many photos: what it takes beyond encoding them.

    python -m benchmarks.photos_add [--classes 1000] [--photos 50] [--repeat 7]

The bank belongs to the bundle that ships; its photos are random unit rows around a mean for each class. Printed are the
median milliseconds of each part of ``sar-bank add``: reading and checking the file, the edit, the look at the photos,
and writing; then of ``PUT /v1/classes/NAME`` with four photos, beside ``POST /v1/classify`` with the same four, which
encodes and ranks them; each with the smallest of all rounds.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from support.pictures import jpeg
from support.servers import serving

from benchmarks import command
from sar_infer.bank import ClassBank, PhotoSet, add_photos
from sar_infer.bundle.bundle import open_bundle
from sar_infer.evaluation import new_photo_findings

ADDED = 4
KEY = "a key"
HEADERS = {"Authorization": f"Bearer {KEY}"}


def photos(random: np.random.Generator, mean: np.ndarray, count: int) -> PhotoSet:
    """Return photos around a mean."""
    rows = mean + random.standard_normal((count, len(mean)), dtype=np.float32) / np.sqrt(len(mean))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    digests = np.frombuffer(b"".join(hashlib.sha256(row.tobytes()).digest() for row in rows), np.uint8).reshape(-1, 32)
    return PhotoSet.of(digests, rows.astype(np.float32))


def filled(classes: int, count: int) -> ClassBank:
    """Return a bank of the shipped bundle's encoder, whose classes have photos."""
    manifest, random = open_bundle().manifest, np.random.default_rng(0)
    rows = random.standard_normal((classes, manifest.embed_dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"class {number}" for number in range(classes)]
    rows_of = {name: photos(random, row, count) for name, row in zip(names, rows, strict=True)} if count else {}
    return add_photos(ClassBank.of(names, rows, manifest.encoder_digest), rows_of)


def sar_bank_add(file: Path, repeat: int) -> dict[str, list[float]]:
    """Return the seconds of each part of ``sar-bank add`` after encoding."""
    bundle, random = open_bundle(), np.random.default_rng(1)
    durations: dict[str, list[float]] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        durations.setdefault(step, []).append(time.perf_counter() - start)
        return result

    for _ in range(repeat):
        bank = timed("read", partial(ClassBank.load, file, bundle.manifest.encoder_digest))
        new = photos(random, bank.embeddings[7], ADDED)
        after = timed("edit", partial(add_photos, bank, {"class 7": new}))
        timed("look", partial(new_photo_findings, after, bundle, bank, {}))
        timed("write", partial(after.save, file))
    durations["sar-bank add, all four"] = [*map(sum, zip(*durations.values(), strict=True))]
    return durations


def over_http(file: Path, repeat: int) -> dict[str, list[float]]:
    """Return the seconds of adding and of classifying four photos."""
    durations: dict[str, list[float]] = {"POST /v1/classify, 4 images": [], "PUT /v1/classes/NAME, 4 images": []}
    with (
        serving("--bank", str(file), "--no-access-log", key=KEY) as server,
        httpx2.Client(base_url=server.url, headers=HEADERS, timeout=60) as client,
    ):
        for number in range(repeat + 1):
            data = [jpeg((256, 256), (number * 30 % 250, 20 * index, 90)) for index in range(ADDED)]
            files = [("image", ("photo.jpg", image, "image/jpeg")) for image in data]
            for request, method, path in (
                ("POST /v1/classify, 4 images", "POST", "/v1/classify"),
                ("PUT /v1/classes/NAME, 4 images", "PUT", "/v1/classes/class%207"),
            ):
                start = time.perf_counter()
                client.request(method, path, files=files).raise_for_status()
                durations[request].append(time.perf_counter() - start)
    return {request: seconds[1:] for request, seconds in durations.items()}


def main() -> None:
    """Print a table."""
    options = command.options(__doc__, classes=1000, photos=50, repeat=7)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photos.safetensors"
        filled(options.classes, options.photos).save(file)
        size, load = file.stat().st_size / 2**20, os.getloadavg()[0]
        durations = sar_bank_add(file, options.repeat) | over_http(file, options.repeat)
    rows = [
        (label, f"{1000 * statistics.median(seconds):.1f}", f"{1000 * min(seconds):.1f}")
        for label, seconds in durations.items()
    ]
    title = f"{options.classes:,} classes of {options.photos} photos, {size:.0f} MiB; load average {load:.1f}"
    command.tell("\n\n".join([title, command.markdown(("step", "median, ms", "least, ms"), rows)]))


if __name__ == "__main__":
    main()
