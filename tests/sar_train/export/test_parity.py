from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import tiny_backbone

from sar_infer.artefact import TOKENIZER, Manifest
from sar_infer.bank import ClassBank
from sar_infer.errors import ImageError
from sar_infer.tokenizer import Tokenizer, encode_name
from sar_train.errors import ExportError
from sar_train.export.parity import compare, in_batches, names_of_every_length
from sar_train.export.source import Source


@pytest.fixture(scope="module")
def manifest(exported: Path) -> Manifest:
    return Manifest.parse((exported / "manifest.json").read_text())


@pytest.fixture(scope="module")
def bank(exported: Path) -> np.ndarray:
    return ClassBank.load(exported / "bank.safetensors").embeddings


def test_batches_of_every_size_come_first() -> None:
    assert [len(batch) for batch in in_batches(range(100))] == [1, 2, 7, 33, 33, 24]


def test_names_fill_every_length(exported: Path, manifest: Manifest) -> None:
    tokenizer, spec = Tokenizer.open(exported / TOKENIZER), manifest.tokenizer
    lengths = [len(encode_name(tokenizer, spec, name)) for name in names_of_every_length(tokenizer, spec)]
    assert lengths == list(range(2, spec.max_name_tokens + 1))
    pet = dataclasses.replace(spec, suffix=", a type of pet.")
    assert len(encode_name(tokenizer, pet, names_of_every_length(tokenizer, pet)[-1])) == spec.max_name_tokens


def test_photos_take_part(exported: Path, source: Source, manifest: Manifest, bank: np.ndarray, tmp_path: Path) -> None:
    photos = [tmp_path / f"{i}.png" for i in range(45)]
    for i, path in enumerate(photos):
        Image.effect_noise((40, 50 + i), 90).convert("RGB").save(path)
    parity = compare(exported, source.backbone, source.prompts, manifest.tokenizer, bank, photos=photos, names=["cat"])
    assert (parity.images, parity.top1_agreement) == (45, 1.0)
    assert 0.99999 < parity.image_min_cosine < 1.00001
    assert parity.name_max_difference < 1e-5


def test_a_photo_that_cannot_be_read_is_named(
    exported: Path, source: Source, manifest: Manifest, bank: np.ndarray, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("not a photo")
    with pytest.raises(ImageError, match=r"bad\.jpg: not an image"):
        compare(exported, source.backbone, source.prompts, manifest.tokenizer, bank, photos=[bad], names=[])


def test_another_image_tower_does_not_pass(
    exported: Path, source: Source, manifest: Manifest, bank: np.ndarray
) -> None:
    other = tiny_backbone(seed=1)
    with pytest.raises(ExportError, match="image encoder: cosine"):
        compare(exported, other, source.prompts, manifest.tokenizer, bank, photos=[], names=[])


def test_another_prompt_does_not_pass(exported: Path, source: Source, manifest: Manifest, bank: np.ndarray) -> None:
    prompts = dataclasses.replace(source.prompts, context=1.01 * source.prompts.context)
    with pytest.raises(ExportError, match="name encoder: differs from torch by"):
        compare(exported, source.backbone, prompts, manifest.tokenizer, bank, photos=[], names=["cat"])


def test_not_a_number_does_not_pass(exported: Path, source: Source, manifest: Manifest, bank: np.ndarray) -> None:
    prompts = dataclasses.replace(source.prompts, context=torch.full_like(source.prompts.context, float("nan")))
    with pytest.raises(ExportError, match="name encoder: differs from torch by nan"):
        compare(exported, source.backbone, prompts, manifest.tokenizer, bank, photos=[], names=["cat"])
