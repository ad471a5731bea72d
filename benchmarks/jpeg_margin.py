"""Time to the encoder's input for a 12-megapixel JPEG: decoded in full, and at the scale that a margin allows.

    python benchmarks/jpeg_margin.py [--bundle DIR] [--margin 2] [--rounds 20] [--photo FILE]

Two images of 4,000 x 3,000 pixels, saved at quality 92: a photo (scikit-image's astronaut, unless another is named)
that is enlarged, with the little detail that leaves; and smooth noise with grain. One thread; medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import Preprocess
from sar_infer.images.prefetch import decode_image

WIDTH, HEIGHT = 4000, 3000


def photo(path: Path) -> bytes:
    """A photo, enlarged."""
    with Image.open(path) as opened:
        return saved(opened.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def noise() -> bytes:
    """Smooth noise with some grain."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-8, 9, (HEIGHT, WIDTH, 1), dtype=np.int16)
    return saved(Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)))


def saved(image: Image.Image) -> bytes:
    """As a JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92)
    return stream.getvalue()


def milliseconds(data: bytes, spec: Preprocess, rounds: int) -> float:
    """Median time of one decoding."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        decode_image(data, spec)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken)) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the one that ships")
    parser.add_argument("--margin", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--photo", type=Path, help="default: scikit-image's astronaut")
    options = parser.parse_args()
    spec, path = open_bundle(options.bundle).manifest.preprocess, options.photo
    if path is None:
        import skimage

        path = Path(skimage.__file__).parent / "data" / "astronaut.png"
    for name, data in ((path.name, photo(path)), ("noise", noise())):
        full, reduced = (
            milliseconds(data, dataclasses.replace(spec, jpeg_margin=margin), options.rounds)
            for margin in (None, options.margin)
        )
        print(f"{name}, {WIDTH} x {HEIGHT}, {len(data) / 1e6:.1f} MB: {full:.0f} ms in full, {reduced:.0f} ms with "
              f"margin {options.margin:g} at {spec.size} pixels, {full / reduced:.1f} times as fast")  # fmt: skip


if __name__ == "__main__":
    main()
