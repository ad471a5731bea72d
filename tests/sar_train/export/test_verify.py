from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sar_infer.artefact.manifest import BANK, IMAGE_ENCODER, MANIFEST, Manifest, Probe, file_entry
from sar_infer.bank import ClassBank
from sar_infer.encoders.self_test import self_test_image
from sar_infer.errors import BundleError
from sar_train.errors import ExportError
from sar_train.export.verify import verify_bundle


def reseal(bundle: Path, **changes: object) -> None:
    manifest = Manifest.parse((bundle / MANIFEST).read_text())
    files = {name: file_entry(bundle / name) for name in manifest.files}
    (bundle / MANIFEST).write_text(dataclasses.replace(manifest, files=files, **changes).sealed().dump())


def test_a_bundle_as_exported_passes(exported: Path) -> None:
    found = verify_bundle(exported)
    assert found.names == 5
    assert found.probe_cosine > 0.99999
    assert max(found.name_max_difference, found.batch_max_difference) < 1e-6


def test_the_generated_picture_is_what_its_seed_says() -> None:
    image = self_test_image(2, 7)
    assert image.tolist() == np.random.default_rng(7).integers(0, 256, (2, 2, 3), dtype=np.uint8).tolist()


@pytest.mark.parametrize(
    "name", sorted(["manifest.json", "bank.safetensors", "image_encoder.onnx", "tokenizer.bpe.gz"])
)
def test_one_changed_byte_in_any_file(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError):
        verify_bundle(copy)


def test_a_probe_that_the_graph_does_not_give(copy: Path) -> None:
    row = np.eye(32)[0]
    reseal(copy, probe=Probe(1, tuple(row.tolist())))
    with pytest.raises(ExportError, match="probe: cosine"):
        verify_bundle(copy)


def test_a_bundle_without_a_probe(copy: Path) -> None:
    reseal(copy, probe=None)
    with pytest.raises(ExportError, match="no probe"):
        verify_bundle(copy)


def test_rows_that_the_name_encoder_does_not_give(copy: Path) -> None:
    bank = ClassBank.load(copy / BANK)
    mixed = dataclasses.replace(bank, embeddings=bank.embeddings[::-1].copy())
    (copy / BANK).unlink()
    mixed.save(copy / BANK)
    reseal(copy)
    with pytest.raises(ExportError, match="bank against name encoder"):
        verify_bundle(copy)


def test_a_graph_in_place_of_another(copy: Path) -> None:
    (copy / IMAGE_ENCODER).write_bytes((copy / "name_encoder.onnx").read_bytes())
    reseal(copy)
    with pytest.raises(BundleError, match="pixels"):
        verify_bundle(copy)
