from __future__ import annotations

import hashlib

import numpy as np
import pytest
from support.precisions import variant

from sar_infer.artefact import Probe
from sar_infer.probe import MIN_COSINE, least_cosine, probe_cosine, probe_picture


def test_the_picture_of_a_seed_never_changes() -> None:
    """Bundles in the field hold vectors for these pictures; the digest was taken when the first was shipped."""
    picture = probe_picture(256, 2024)
    assert (picture.shape, picture.dtype) == ((256, 256, 3), np.uint8)
    assert hashlib.sha256(picture.tobytes()).hexdigest() == PICTURE
    assert not np.array_equal(picture, probe_picture(256, 2025))


def test_the_cosine_of_a_probe() -> None:
    probe = Probe(1, (0.6, 0.8))
    assert probe_cosine(probe, np.array([0.6, 0.8], dtype=np.float32)) == pytest.approx(1)
    assert probe_cosine(probe, np.array([0.8, -0.6], dtype=np.float32)) == pytest.approx(0)
    assert np.isnan(probe_cosine(probe, np.array([np.nan, 1], dtype=np.float32)))


def test_what_a_healthy_encoder_reaches() -> None:
    assert least_cosine() == least_cosine(variant("x")) == MIN_COSINE
    assert least_cosine(variant("x", probe_cosine=0.97)) == pytest.approx(0.96)
    assert least_cosine(variant("x", probe_cosine=1.0)) == pytest.approx(0.99)


PICTURE = "dcfefcd327c24db9434ee23686253cd77b458b9a3d22d35cf596f909718478cc"
