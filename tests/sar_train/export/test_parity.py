from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.exported import moved, source_of
from support.tiny import tiny_backbone

from sar_infer.bank import ClassBank
from sar_infer.bundle.manifest import TOKENIZER, Manifest
from sar_infer.errors import ImageError
from sar_infer.text.tokenizer import Tokenizer, encode_name
from sar_train.errors import ExportError
from sar_train.export.fixed import Fixed, handcrafted
from sar_train.export.parity import compare, compare_answers, names_of_every_length
from sar_train.export.source import ExportSource
from sar_train.training.prompted import PromptedCLIP


@pytest.fixture(scope="module")
def manifest(exported: Path) -> Manifest:
    return Manifest.parse((exported / "manifest.json").read_text())


@pytest.fixture(scope="module")
def bank(exported: Path) -> np.ndarray:
    return ClassBank.load(exported / "bank.safetensors").embeddings


def test_names_fill_every_length(exported: Path, manifest: Manifest) -> None:
    tokenizer, spec = Tokenizer.open(exported / TOKENIZER), manifest.tokenizer
    lengths = [len(encode_name(tokenizer, spec, name)) for name in names_of_every_length(tokenizer, spec)]
    assert lengths == list(range(2, spec.max_name_tokens + 1))
    pet = dataclasses.replace(spec, suffix=", a type of pet.")
    assert len(encode_name(tokenizer, pet, names_of_every_length(tokenizer, pet)[-1])) == spec.max_name_tokens


def test_photos_take_part(
    exported: Path, source: ExportSource, manifest: Manifest, bank: np.ndarray, tmp_path: Path
) -> None:
    photos = [tmp_path / f"{i}.png" for i in range(45)]
    for i, path in enumerate(photos):
        Image.effect_noise((40, 50 + i), 90).convert("RGB").save(path)
    found = compare(exported, source.prompted, manifest.tokenizer, bank, photos=photos, names=["cat"])
    assert (found.images, found.top1_agreement) == (45, 1.0)
    assert 0.99999 < found.image_min_cosine < 1.00001
    assert found.name_max_difference < 1e-5


def test_a_photo_that_cannot_be_read_is_named(
    exported: Path, source: ExportSource, manifest: Manifest, bank: np.ndarray, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("not a photo")
    with pytest.raises(ImageError, match="bad.jpg"):
        compare(exported, source.prompted, manifest.tokenizer, bank, photos=[bad], names=[])


def test_another_image_tower_does_not_pass(
    exported: Path, source: ExportSource, manifest: Manifest, bank: np.ndarray
) -> None:
    other = handcrafted(tiny_backbone(seed=1), source.prompted.template)
    with pytest.raises(ExportError, match="image encoder"):
        compare(exported, other, manifest.tokenizer, bank, photos=[], names=[])


@pytest.mark.parametrize(("factor", "found"), [(1.01, r"0\.\d+"), (float("nan"), "nan")])
def test_another_prompt_does_not_pass(
    exported: Path, source: ExportSource, manifest: Manifest, bank: np.ndarray, factor: float, found: str
) -> None:
    prompts = source.backbone.handcrafted(source.prompted.template)
    moved = Fixed(dataclasses.replace(prompts, context=factor * prompts.context))
    prompted = PromptedCLIP(source.backbone, moved, source.prompted.template, ())
    with pytest.raises(ExportError, match=f"name_encoder.onnx.*: {found},"):
        compare(exported, prompted, manifest.tokenizer, bank, photos=[], names=["cat"])


def test_a_bundle_that_answers_otherwise_than_the_head_does_not_pass(exported: Path) -> None:
    prompted = moved("dept")
    head = source_of(prompted, ("cat", "sea lake", "red car")).head("")
    assert head is not None
    with pytest.raises(ExportError, match="class head"):
        compare_answers(exported, prompted, head)
