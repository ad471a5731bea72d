"""The picture that a bundle's manifest describes by a seed, with the vector that its encoder must give for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.artefact.bundle import Bundle
from sar_infer.artefact.manifest import Probe, Variant
from sar_infer.encoders.precision import Choice
from sar_infer.errors import BundleError
from sar_infer.images.prefetch import decode_picture

MIN_COSINE = 0.999
"""What a healthy encoder reaches by far: full precision differs in the seventh digit, a broken kernel in the first."""

_VARIANT_TOLERANCE = 0.01
"""Of a smaller graph, whose own cosine at export is known: kernels of other CPUs round otherwise."""

_SEED = 0
"""Of the picture where a bundle has no probe."""


def least_cosine(variant: Variant | None = None) -> float:
    """The least cosine to the probe's vector that a healthy encoder gives; ``variant`` is None for the fp32 graph."""
    expected = None if variant is None else variant.probe_cosine
    return MIN_COSINE if expected is None else min(MIN_COSINE, expected - _VARIANT_TOLERANCE)


def probe_picture(size: int, seed: int) -> npt.NDArray[np.uint8]:
    """The picture (size, size, 3) that a seed stands for."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def probe_cosine(probe: Probe, row: Floats) -> float:
    """Cosine between the probe's vector and a unit row (D,) that was computed here; NaN where the row is not finite."""
    return float(row @ np.array(probe.embedding, dtype=np.float32))


class SelfTest:
    """Runs the probe picture through an image encoder, and refuses one that gives another vector than at export.

    A bundle without a probe is asked for a finite vector of length 1. Safe to share between threads.

    Args:
        bundle: Whose encoder it is.
        choice: Its graphs that run.
        encode: The encoder: unit rows (N, D) for N inputs (N, 3, size, size).

    Attributes:
        least: The least cosine that a healthy encoder gives.
        due: Whether no picture may be encoded before ``run``: the encoder is a smaller graph whose vector at export is
            known, and was not tested yet. INT8 saturates on x86 CPUs without VNNI, and nothing else would tell.
    """

    def __init__(self, bundle: Bundle, choice: Choice, encode: Callable[[Floats], Floats]) -> None:
        self._bundle = bundle
        self._choice = choice
        self._encode = encode
        self._lock, self._passed = threading.Lock(), False
        variant, probe = choice.variant, bundle.manifest.probe
        self.least = least_cosine(variant)
        self.due = probe is not None and variant is not None and variant.probe_cosine is not None

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        """The picture (size, size, 3)."""
        manifest = self._bundle.manifest
        return probe_picture(manifest.preprocess.size, manifest.probe.seed if manifest.probe else _SEED)

    @property
    def pixels(self) -> Floats:
        """The encoder's input (3, size, size) for it."""
        return decode_picture(self.picture, self._bundle.manifest.preprocess)

    def cosine(self, row: Floats) -> float:
        """How near a unit row (D,) for the picture is to what it must be, 1 at best; NaN where it is not finite.

        Of a bundle without a probe, how near the row's length is to 1.
        """
        probe = self._bundle.manifest.probe
        return probe_cosine(probe, row) if probe else 1 - abs(1 - float(np.linalg.norm(row)))

    def run(self) -> None:
        """Test the encoder, unless it has passed already.

        Raises:
            BundleError: it computes otherwise than at export.
        """
        with self._lock:
            if self._passed:
                return
            (row,) = self._encode(self.pixels[np.newaxis])
            if not (found := self.cosine(row)) >= self.least:
                cause = "the graph or what runs it is broken"
                if self._choice.variant is not None:
                    cause = f"this machine computes {self._choice.precision} otherwise; use --precision fp32"
                raise BundleError(
                    f"{self._bundle.path / self._choice.image}: the probe picture gives another vector than at export "
                    f"(cosine {found:.4f}, expected at least {self.least:.4f}): {cause}"
                )
            self._passed, self.due = True, False
