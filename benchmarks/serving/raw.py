"""The engine without a server: loops that decode photos and run onnxruntime on full batches.

    python -m benchmarks.serving.raw --bundle exports/mini --photos DIR --seconds 10

``plain`` decodes a batch, runs it, and so on, what one would write first; ``pillow`` is that loop with Pillow and NumPy
by hand in place of our decoding. Each with onnxruntime's own choice of threads. ``overlapped`` decodes the next batch
in threads while one runs. ``parallel`` is as many plain loops as cores, with a thread each for onnxruntime: what the
machine can do. Prints JSON: images per second and CPU milliseconds of an image, by variant and batch.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks import command
from sar_infer.bundle.manifest import IMAGE_ENCODER, MANIFEST, Manifest, Preprocess
from sar_infer.images.load import load_rgb
from sar_infer.images.preprocess import to_input

CORES = len(os.sched_getaffinity(0))
Decode = Callable[[bytes], np.ndarray]


def session(bundle: Path, threads: int) -> onnxruntime.InferenceSession:
    """As onnxruntime's own examples open it; 0 threads is its own choice."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(bundle / IMAGE_ENCODER, options, providers=["CPUExecutionProvider"])


def ours(spec: Preprocess, photo: bytes) -> np.ndarray:
    """The run time's own decoding."""
    return to_input(load_rgb(photo, spec.fill), spec)


def by_hand(spec: Preprocess, photo: bytes) -> np.ndarray:
    """The usual lines of Pillow and NumPy: shorter side, centre, scale, normalise."""
    image = Image.open(BytesIO(photo)).convert("RGB")
    scale = spec.size / min(image.size)
    width, height = (max(spec.size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - spec.size) // 2, (height - spec.size) // 2
    pixels = np.asarray(image.crop((left, top, left + spec.size, top + spec.size)), dtype=np.float32) / 255
    return np.ascontiguousarray(
        ((pixels - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)).transpose(2, 0, 1)
    )


def plain(engine: onnxruntime.InferenceSession, decode: Decode, photos: Iterator[bytes], batch: int, end: float) -> int:
    """Decode a batch, run it, until the time is over; the number of images."""
    done = 0
    while time.perf_counter() < end:
        engine.run(None, {"pixels": np.stack([decode(next(photos)) for _ in range(batch)])})
        done += batch
    return done


def overlapped(
    engine: onnxruntime.InferenceSession, decode: Decode, photos: Iterator[bytes], batch: int, end: float
) -> int:
    """The same, while threads decode the next batch."""
    done = 0
    with ThreadPoolExecutor(CORES) as pool:
        ahead = [pool.submit(decode, next(photos)) for _ in range(batch)]
        while time.perf_counter() < end:
            current, ahead = ahead, [pool.submit(decode, next(photos)) for _ in range(batch)]
            engine.run(None, {"pixels": np.stack([future.result() for future in current])})
            done += batch
    return done


def parallel(engine: onnxruntime.InferenceSession, decode: Decode, photos: list[bytes], batch: int, end: float) -> int:
    """A plain loop on each core, each over the photos from another place."""
    starts = [core * len(photos) // CORES for core in range(CORES)]
    with ThreadPoolExecutor(CORES) as pool:
        loops = [
            pool.submit(plain, engine, decode, itertools.cycle(photos[at:] + photos[:at]), batch, end) for at in starts
        ]
        return sum(loop.result() for loop in loops)


def main() -> None:
    """Measure all and print JSON."""
    options = command.options(__doc__, bundle=Path, photos=Path, seconds=10.0, batches=[8, 16])
    spec = Manifest.parse((options.bundle / MANIFEST).read_text("utf-8"), MANIFEST).preprocess
    photos = [path.read_bytes() for path in sorted(options.photos.glob("*.jpg"))]
    wide, narrow = session(options.bundle, 0), session(options.bundle, 1)
    mine, hand = partial(ours, spec), partial(by_hand, spec)
    results: dict[str, dict[int, dict[str, float]]] = {}
    for batch in options.batches:
        turns: dict[str, Callable[[float], int]] = {
            "plain": partial(plain, wide, mine, itertools.cycle(photos), batch),
            "pillow": partial(plain, wide, hand, itertools.cycle(photos), batch),
            "overlapped": partial(overlapped, wide, mine, itertools.cycle(photos), batch),
            "parallel": partial(parallel, narrow, mine, photos, batch),
        }
        for name, turn in turns.items():
            turn(time.perf_counter() + 1)
            start, cpu = time.perf_counter(), time.process_time()
            images = turn(start + options.seconds)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            results.setdefault(name, {})[batch] = {"rate": images / wall, "cpu_ms": 1000 * cpu / images}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
