"""The two encoders of a bundle, each with the samples that a smaller graph of it is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from sar_infer.artefact.bundle import Bundle
from sar_infer.artefact.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_infer.encoders.encoders import ImageEncoder, NameEncoder
from sar_infer.encoders.scoring import finite
from sar_infer.encoders.self_test import self_test_cosine
from sar_train.export.precision.answers import NEAR_TIE, image_logits, near_ties
from sar_train.export.precision.batches import BATCH, Rows
from sar_train.export.precision.gate import Figures, Gate, beside
from sar_train.export.precision.samples import Photos, name_tokens, pixels
from sar_train.export.verify import generated_pixels


class Side(Protocol):
    """One encoder."""

    @property
    def encoder(self) -> Literal["image", "name"]:
        """Which of the two."""

    @property
    def source(self) -> str:
        """Its float32 graph in the bundle."""

    @property
    def calibration(self) -> Sequence[Rows]:
        """Photos that ranges may be taken from, each (3, size, size)."""

    @property
    def one(self) -> npt.NDArray[Any]:
        """A single typical input, for timing."""

    def judged(self, path: Path, gate: Gate) -> tuple[Figures, list[str], list[str]]:
        """Figures of a graph beside the float32 one, notes, and which bounds it misses beyond those of the figures.

        Raises:
            BundleError: the graph gives numbers that are not finite.
        """

    def probe_cosine(self, path: Path) -> float | None:
        """Cosine between the probe's vector in the manifest and a graph's; None where there is no probe.

        Raises:
            BundleError: the graph gives numbers that are not finite.
        """


class Images:
    """Photos, and the answers that they get from the bundle's bank."""

    encoder: Final = "image"
    source = IMAGE_ENCODER

    def __init__(self, bundle: Bundle, photos: Photos) -> None:
        self._bundle, self._photos, self._spec = bundle, photos.judging, bundle.manifest.preprocess
        self.calibration = [pixels(photo, self._spec) for photo in photos.calibration]
        self.one = self.calibration[0][np.newaxis]
        self.reference = self._rows(bundle.path / self.source)
        """Unit rows (N, D) of the judging photos in float32."""

    def judged(self, path: Path, gate: Gate) -> tuple[Figures, list[str], list[str]]:  # noqa: ARG002
        """See ``Side``."""
        rows = self._rows(path)
        other, level = near_ties(self._bundle, rows, self.reference)
        what = f"of {other} photos with another answer, {level} have two classes within {NEAR_TIE:g} in float32"
        return beside(rows, self.reference, image_logits(self._bundle)), [what] if other else [], []

    def probe_cosine(self, path: Path) -> float | None:
        """See ``Side``."""
        probe = self._bundle.manifest.probe
        if probe is None:
            return None
        (row,) = finite(self._encoder(path).encode(generated_pixels(self._spec, probe.seed)[np.newaxis]), str(path))
        return self_test_cosine(probe, row)

    def _encoder(self, path: Path) -> ImageEncoder:
        return ImageEncoder(path, self._bundle.manifest.embed_dim, "cpu")

    def _rows(self, path: Path) -> Rows:
        """Photos are read again for each graph, so that memory does not grow with their number."""
        encoder, count = self._encoder(path), len(self._photos)
        pieces = [self._photos[start : start + BATCH] for start in range(0, count, BATCH)]
        rows = [encoder.encode(np.stack([pixels(p, self._spec) for p in piece])) for piece in pieces]
        return finite(np.concatenate(rows), str(path))


class Names:
    """Class names and nouns, with their nearest class of the bank, and what photos answer among them.

    Args:
        bundle: whose name encoder.
        photos: unit rows (N, D) of photos in float32.
    """

    encoder: Final = "name"
    source = NAME_ENCODER
    calibration: Sequence[Rows] = ()

    def __init__(self, bundle: Bundle, photos: Rows) -> None:
        self._bundle, self._photos, self._tokens = bundle, photos, name_tokens(bundle)
        typical = sorted(self._tokens, key=len)[len(self._tokens) // 2]
        self.one = np.array([[*typical, bundle.manifest.tokenizer.end_token]], dtype=np.int64)
        self._reference = self._rows(bundle.path / self.source)

    def judged(self, path: Path, gate: Gate) -> tuple[Figures, list[str], list[str]]:
        """See ``Side``: photos must choose the same name among all of them as often as the gate's agreement says."""
        rows = self._rows(path)
        chosen, expected = ((self._photos @ names.T).argmax(1) for names in (rows, self._reference))
        same = float((chosen == expected).mean())
        what = f"{len(chosen)} photos choose the same of these {len(rows):,} names in {same:.2%}"
        failures = [] if same >= gate.top1_agreement else [f"{what}, expected at least {gate.top1_agreement:.2%}"]
        bank = self._bundle.bank.embeddings
        return beside(rows, self._reference, lambda names: names @ bank.T), [what], failures

    def probe_cosine(self, path: Path) -> float | None:  # noqa: ARG002
        """See ``Side``: names have no probe."""
        return None

    def _rows(self, path: Path) -> Rows:
        manifest = self._bundle.manifest
        return NameEncoder(path, manifest.embed_dim, manifest.tokenizer.end_token, "cpu").encode(self._tokens)
