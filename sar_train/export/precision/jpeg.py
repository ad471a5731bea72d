"""Whether large JPEGs may be decoded at a reduced scale: the vectors that they get, beside those of full decoding."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sar_infer.artefact import IMAGE_ENCODER, Preprocess
from sar_infer.bundle import Bundle
from sar_infer.encoders import ImageEncoder
from sar_infer.images import MAX_SIDE, load_rgb
from sar_infer.preprocess import least_side, to_input
from sar_train.export.precision.gate import Figures, Gate, beside

Rows = npt.NDArray[np.float32]

JPEG_GATE = Gate(min_cosine=0.99, mean_cosine=0.998, top1_agreement=0.99)
MOST_PHOTOS = 200
QUALITY = 92
_ENLARGED = 4
"""Short side of an enlarged photo, in units of the least that decoding may leave, so that scales down to 1/4 occur."""


def judged(bundle: Bundle, margin: float, photos: Sequence[Path]) -> tuple[Figures, int]:
    """Compare reduced with full decoding.

    A JPEG that is large enough to be reduced is taken as it is; any other photo is enlarged to four times the least
    that decoding must leave (Lanczos) and saved as a JPEG of quality 92.

    Args:
        bundle: whose preprocessing and image encoder.
        margin: short side that decoding must leave, in units of the encoder's size.
        photos: at most ``MOST_PHOTOS`` are used.

    Returns:
        The figures, and how many photos were large enough as they are.

    Raises:
        ImageError: a photo cannot be read.
    """
    spec = reduced(bundle.manifest.preprocess, margin)
    least = least_side(spec)
    assert least is not None  # noqa: S101 - the margin is a number
    encoder = ImageEncoder(bundle.path / IMAGE_ENCODER, bundle.manifest.embed_dim, "cpu")
    rows: tuple[list[Rows], list[Rows]] = ([], [])
    own = 0
    for photo in photos[:MOST_PHOTOS]:
        data, as_it_is = _large(photo, least)
        own += as_it_is
        for found, limit in zip(rows, (least, None), strict=True):
            found.append(encoder.encode(to_input(load_rgb(data, spec.fill, least=limit), spec)[np.newaxis]))
    fast, full = map(np.concatenate, rows)
    return beside(fast, full, bundle.bank.embeddings), own


def reduced(spec: Preprocess, margin: float) -> Preprocess:
    """The same preprocessing with this policy for large JPEGs."""
    return dataclasses.replace(spec, jpeg_margin=margin)


def _large(photo: Path, least: int) -> tuple[bytes, bool]:
    """Bytes of a JPEG that can be reduced, and whether the photo was one."""
    with Image.open(photo) as opened:
        if opened.format == "JPEG" and min(opened.size) >= 2 * least:
            return photo.read_bytes(), True
    image = load_rgb(photo)
    scale = min(_ENLARGED * least / min(image.size), MAX_SIDE / max(image.size))
    large = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    large.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue(), False
