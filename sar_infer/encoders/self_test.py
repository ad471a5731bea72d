"""The self-test: an image that the manifest describes by a seed, and the vector that the encoder must give for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import Preprocess, SelfTestVector, Variant
from sar_infer.encoders.precision import Choice
from sar_infer.encoders.sessions import MAIN_DEVICES, Device
from sar_infer.errors import BundleError
from sar_infer.images.prefetch import decode_image

MIN_COSINE = 0.999
"""Healthy encoders are far above it: full precision differs in the seventh digit, a broken kernel in the first."""
PARITY = 0.99999
"""Least cosine between rows of float32 encoders that are the same, which other providers have to reach."""
_VARIANT_TOLERANCE = 0.01
"""Allowed below a smaller graph's own cosine at export, since kernels of other CPUs round differently."""


def least_cosine(variant: Variant | None = None) -> float:
    """Return the least cosine that a healthy encoder reaches; ``variant`` is None for the fp32 graph."""
    return MIN_COSINE if variant is None else min(MIN_COSINE, variant.self_test_cosine - _VARIANT_TOLERANCE)


def self_test_image(size: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return the image (size, size, 3) of a seed."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def self_test_pixels(spec: Preprocess, seed: int) -> Floats:
    """Return the encoder's input (3, size, size) for the image of a seed."""
    return decode_image(self_test_image(spec.size, seed), spec)


def self_test_cosine(stored: SelfTestVector, row: Floats) -> float:
    """Return the cosine between the stored vector and a unit row (D,) computed here; NaN if the row is not finite."""
    return float(row @ np.array(stored.embedding, dtype=np.float32))


class SelfTest:
    """Encodes the self-test image, and rejects an encoder that gives another vector than at export.

    Safe to share between threads.

    Args:
        bundle: The bundle of the encoder.
        choice: The graph that runs.
        device: Where it runs.
        encode: The encoder: unit rows (N, D) for N inputs (N, 3, size, size).

    Attributes:
        image: The image (size, size, 3).
        least: The least cosine that a healthy encoder reaches.
        due: True if ``run`` must come before any image is encoded: the encoder has not been tested yet, and is a
            smaller graph or runs on a provider beyond ``MAIN_DEVICES``. INT8 saturates on x86 CPUs without VNNI, and
            nothing else would show it.
    """

    def __init__(self, bundle: Bundle, choice: Choice, device: Device, encode: Callable[[Floats], Floats]) -> None:
        self._bundle, self._choice, self._device, self._encode = bundle, choice, device, encode
        self._lock, self._passed = threading.Lock(), False
        self.image = self_test_image(bundle.manifest.preprocess.size, bundle.manifest.self_test.seed)
        foreign = device not in MAIN_DEVICES
        self.least = PARITY if foreign and choice.variant is None else least_cosine(choice.variant)
        if choice.precision == "bf16":
            self.least = MIN_COSINE - _VARIANT_TOLERANCE  # an image of noise; photos pass the gate
        self.due = foreign or choice.variant is not None

    @property
    def pixels(self) -> Floats:
        """Return the encoder's input (3, size, size) for the image."""
        return decode_image(self.image, self._bundle.manifest.preprocess)

    def cosine(self, row: Floats) -> float:
        """Return the cosine between a row (D,) for the image and the stored vector; NaN if the row is not finite."""
        return self_test_cosine(self._bundle.manifest.self_test, row)

    def run(self) -> None:
        """Test the encoder, unless it has passed already.

        Raises:
            BundleError: It computes something else than at export.
        """
        with self._lock:
            if self._passed:
                return
            (row,) = self._encode(self.pixels[np.newaxis])
            if not (cosine := self.cosine(row)) >= self.least:
                cause = "the graph or what runs it is broken"
                if self._device not in MAIN_DEVICES:
                    cause = f"device {self._device} computes it differently; use --device cpu"
                elif self._choice.variant is not None:
                    cause = f"this machine computes {self._choice.precision} differently; use --precision fp32"
                raise BundleError(
                    f"{self._bundle.path / self._choice.image}: the self-test image gives another vector than at "
                    f"export (cosine {cosine:.5f}, expected at least {self.least:g}): {cause}"
                )
            self._passed, self.due = True, False
