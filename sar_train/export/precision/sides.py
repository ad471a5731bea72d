"""The two encoders of a bundle, each with the samples on which a smaller graph of it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_infer.bundle_check.comparison import Figures, compare_rows
from sar_infer.bundle_check.graphs import self_test_of
from sar_infer.encoders.encoders import ImageEncoder, NameEncoder, finite
from sar_train.export.precision.gate import NEAR_TIE, Gate, image_logits, near_ties
from sar_train.export.precision.samples import BATCH, PhotoSamples, name_tokens, pixels


class ImageSide:
    """The image encoder, evaluated on photos and the answers that they get from the bundle's bank.

    Attributes:
        encoder: which of the two it is.
        source: its float32 graph in the bundle.
        calibration: the images that ranges may be taken from, each (3, size, size).
        one: a single typical input, for timing.
        reference: unit rows (N, D) of the judging photos in float32.
    """

    encoder: Final = "image"
    source = IMAGE_ENCODER

    def __init__(self, bundle: Bundle, photos: PhotoSamples) -> None:
        self._bundle, self._photos, self._spec = bundle, photos.judging, bundle.manifest.preprocess
        self.calibration = [pixels(photo, self._spec) for photo in photos.calibration]
        self.one = self.calibration[0][np.newaxis]
        self.reference = self._rows(bundle.path / self.source)

    def judged(self, path: Path, gate: Gate) -> tuple[Figures, list[str], list[str]]:  # noqa: ARG002
        """Judge a graph: its figures beside float32, notes, and the bounds it misses beyond those of the figures.

        Raises:
            BundleError: the graph gives numbers that are not finite.
        """
        rows = self._rows(path)
        other, level = near_ties(self._bundle, rows, self.reference)
        note = f"of {other} photos with another answer, {level} have two classes within {NEAR_TIE:g} in float32"
        return compare_rows(rows, self.reference, image_logits(self._bundle)), [note] if other else [], []

    def self_test_cosine(self, path: Path) -> float | None:
        """Return the cosine between the self-test vector in the manifest and a graph's; None without a self-test.

        Raises:
            BundleError: the graph gives numbers that are not finite.
        """
        return self_test_of(self._bundle.manifest, lambda batch: finite(self._encoder(path).encode(batch), str(path)))

    def _encoder(self, path: Path) -> ImageEncoder:
        return ImageEncoder(path, self._bundle.manifest.embed_dim, "cpu")

    def _rows(self, path: Path) -> Floats:
        """Encode the photos, read again for each graph so that memory does not grow with their number."""
        encoder, count = self._encoder(path), len(self._photos)
        pieces = [self._photos[start : start + BATCH] for start in range(0, count, BATCH)]
        rows = [encoder.encode(np.stack([pixels(p, self._spec) for p in piece])) for piece in pieces]
        return finite(np.concatenate(rows), str(path))


class NameSide:
    """The name encoder, evaluated on class names and nouns: their nearest class, and which of them photos choose.

    Args:
        bundle: its name encoder is judged.
        photos: unit rows (N, D) of photos in float32.
    """

    encoder: Final = "name"
    source = NAME_ENCODER
    calibration: Sequence[Floats] = ()

    def __init__(self, bundle: Bundle, photos: Floats) -> None:
        self._bundle, self._photos, self._tokens = bundle, photos, name_tokens(bundle)
        typical = sorted(self._tokens, key=len)[len(self._tokens) // 2]
        self.one = np.array([[*typical, bundle.manifest.tokenizer.end_token]], dtype=np.int64)
        self._reference = self._rows(bundle.path / self.source)

    def judged(self, path: Path, gate: Gate) -> tuple[Figures, list[str], list[str]]:
        """Judge a graph; photos must choose the same name among all of them as often as the gate's agreement says."""
        rows = self._rows(path)
        chosen, expected = ((self._photos @ names.T).argmax(1) for names in (rows, self._reference))
        same = float((chosen == expected).mean())
        note = f"{len(chosen)} photos choose the same of these {len(rows):,} names in {same:.2%}"
        failures = [] if same >= gate.top1_agreement else [f"{note}, expected at least {gate.top1_agreement:.2%}"]
        bank = self._bundle.bank.embeddings
        return compare_rows(rows, self._reference, lambda names: names @ bank.T), [note], failures

    def self_test_cosine(self, path: Path) -> float | None:  # noqa: ARG002
        """Return None: names have no self-test."""
        return None

    def _rows(self, path: Path) -> Floats:
        manifest = self._bundle.manifest
        return NameEncoder(path, manifest.embed_dim, manifest.tokenizer.end_token, "cpu").encode(self._tokens)


Side = ImageSide | NameSide
"""One of a bundle's two encoders."""
