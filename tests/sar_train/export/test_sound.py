"""A bundle as an export writes it, opened and measured again."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.sound import change

from sar_infer.bundle.manifest import IMAGE_ENCODER
from sar_infer.bundle_check import moved, verify_bundle
from sar_infer.errors import BundleError


def test_a_bundle_as_exported_passes(exported: Path) -> None:
    lines = verify_bundle(exported)
    assert not moved(lines)
    now = {line.what: line.now for line in lines if line.verdict == "ok"}
    assert now["self-test image, cosine"] > 0.99999
    assert now["5 bank rows made again, difference"] < 1e-6
    assert now["batches of 1, 2, 7 and 33, difference"] < 1e-6


@pytest.mark.parametrize("name", ["manifest.json", "bank.safetensors", "image_encoder.onnx", "tokenizer.bpe.gz"])
def test_one_changed_byte_in_any_file(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError):
        verify_bundle(copy)


def test_a_graph_in_place_of_another(copy: Path) -> None:
    (copy / IMAGE_ENCODER).write_bytes((copy / "name_encoder.onnx").read_bytes())
    change(copy)
    with pytest.raises(BundleError, match="does not take what this encoder is given"):
        verify_bundle(copy)
