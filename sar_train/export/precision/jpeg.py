"""Judge whether large JPEGs may be decoded at a reduced scale, by their vectors beside those of full decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER
from sar_infer.bundle_check.comparison import Figures, compare_rows
from sar_infer.encoders.encoders import ImageEncoder
from sar_infer.images.preprocess import least_side
from sar_train.export.precision.gate import Gate, image_logits
from sar_train.export.precision.samples import pixels

JPEG_GATE = Gate(min_cosine=0.99, mean_cosine=0.998, top1_agreement=0.99)
MOST_PHOTOS = 200
LEAST_PHOTOS = 20
"""Large JPEGs needed for the gate to mean anything; enlarged photos have no fine detail to lose."""
_FORMATS = ("JPEG", "MPO")


@dataclass(frozen=True)
class Policy:
    """The result of judging a margin.

    Attributes:
        margin: short side that must remain after decoding, in units of the encoder's size.
        figures: reduced beside full decoding; None if there are too few photos.
        failures: why it is refused; empty if it passes.
    """

    margin: float
    figures: Figures | None
    failures: tuple[str, ...]


def judged(bundle: Bundle, margin: float, photos: Sequence[Path]) -> Policy:
    """Compare reduced with full decoding on the JPEGs that are large enough to be reduced.

    Args:
        bundle: its preprocessing, image encoder and bank are used.
        margin: as in ``Policy``.
        photos: of their large JPEGs at most ``MOST_PHOTOS`` are used.

    Raises:
        ImageError: a photo cannot be read; names it.
    """
    spec = dataclasses.replace(bundle.manifest.preprocess, jpeg_margin=margin)
    least = least_side(spec)
    assert least is not None  # noqa: S101 - the margin is a number
    large = [photo for photo in photos if _is_large(photo, 2 * least)]
    if len(large) < LEAST_PHOTOS:
        why = (
            f"{len(large)} of the {len(photos)} photos to evaluate with are JPEGs with a short side of {2 * least:,} "
            f"pixels or more, which it would change; expected at least {LEAST_PHOTOS}: give photos as the camera made "
            "them, or a smaller margin"
        )
        return Policy(margin, None, (why,))
    encoder = ImageEncoder(bundle.path / IMAGE_ENCODER, bundle.manifest.embed_dim, "cpu")

    def rows(limit: int | None) -> Floats:
        return np.concatenate([encoder.encode(pixels(p, spec, limit)[np.newaxis]) for p in large[:MOST_PHOTOS]])

    figures = compare_rows(rows(least), rows(None), image_logits(bundle))
    return Policy(margin, figures, tuple(JPEG_GATE.failures(figures)))


def _is_large(photo: Path, side: int) -> bool:
    """Say whether a file is a JPEG whose short side has at least so many pixels."""
    try:
        with Image.open(photo, formats=_FORMATS) as opened:
            return min(opened.size) >= side
    except Exception:  # another format, or damaged: hostile data makes Pillow raise almost anything
        return False
