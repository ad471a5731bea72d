from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bundles import DIM, PREPROCESS, SIZE, reseal

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, SelfTestVector
from sar_infer.encoders.precision import Choice
from sar_infer.encoders.self_test import MIN_COSINE, SelfTest, self_test_image
from sar_infer.errors import BundleError
from sar_infer.images.preprocess import to_input

FULL = Choice("fp32", IMAGE_ENCODER)


def test_the_image_of_a_seed_never_changes() -> None:
    """Bundles in the field hold vectors for these images; the digest was taken when the first was shipped."""
    image = self_test_image(256, 2024)
    assert (image.shape, image.dtype) == ((256, 256, 3), np.uint8)
    assert hashlib.sha256(image.tobytes()).hexdigest() == IMAGE
    assert not np.array_equal(image, self_test_image(256, 2025))


def test_a_self_test_runs_until_it_is_passed(bundle_copy: Path) -> None:
    stored = SelfTestVector(5, (1.0,) + (0.0,) * (DIM - 1))
    reseal(bundle_copy, self_test=stored)
    rows = [np.roll(np.float32(stored.embedding), 1), np.float32(stored.embedding)]
    batches = []

    def encode(pixels: np.ndarray) -> np.ndarray:
        batches.append(pixels)
        return rows[len(batches) - 1][np.newaxis]

    test = SelfTest(open_bundle(bundle_copy), FULL, "cpu", encode)
    assert test.least == MIN_COSINE
    with pytest.raises(BundleError, match=r"cosine 0\.0000"):
        test.run()
    test.run()
    test.run()
    assert [pixels.shape for pixels in batches] == [(1, 3, SIZE, SIZE)] * 2
    np.testing.assert_array_equal(batches[0][0], to_input(Image.fromarray(self_test_image(SIZE, 5)), PREPROCESS))


IMAGE = "dcfefcd327c24db9434ee23686253cd77b458b9a3d22d35cf596f909718478cc"
