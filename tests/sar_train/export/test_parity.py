from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.photos import write_photo

from sar_infer import Classifier
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import Parity
from sar_infer.errors import ImageError
from sar_infer.text.tokenizer import encode_name
from sar_train.errors import ExportError
from sar_train.export.parity import compare, names_of_every_length
from sar_train.export.source import ExportSource
from sar_train.training.prompted import Fixed, PromptedCLIP


def compared(exported: Path, source: ExportSource, photos: Sequence[Path] = ()) -> Parity:
    bundle = open_bundle(exported)
    embedder = Classifier(bundle, device="cpu")
    return compare(embedder, source, bundle.bank.embeddings, photos=photos, names=("cat",))


def test_names_fill_every_length(exported: Path) -> None:
    bundle = open_bundle(exported)
    tokenizer, spec = bundle.tokenizer, bundle.spec
    lengths = [len(encode_name(tokenizer, spec, name)) for name in names_of_every_length(tokenizer, spec)]
    assert lengths == list(range(2, spec.max_name_tokens + 1))
    pet = dataclasses.replace(spec, suffix=", a type of pet.")
    assert len(encode_name(tokenizer, pet, names_of_every_length(tokenizer, pet)[-1])) == spec.max_name_tokens


def test_photos_take_part_and_one_that_cannot_be_read_is_named(
    exported: Path, source: ExportSource, tmp_path: Path
) -> None:
    photos = [write_photo(tmp_path / f"{seed}.png", seed) for seed in range(45)]
    parity = compared(exported, source, photos)
    assert (parity.images, parity.top1_agreement) == (45, 1.0)
    assert 0.99999 < parity.image_min_cosine < 1.00001
    assert parity.name_max_difference < 1e-5
    (tmp_path / "bad.jpg").write_text("not a photo")
    with pytest.raises(ImageError, match="bad.jpg"):
        compared(exported, source, [tmp_path / "bad.jpg"])


@pytest.mark.parametrize(("factor", "difference"), [(1.01, r"0\.\d+"), (float("nan"), "nan")])
def test_another_prompt_does_not_pass(exported: Path, source: ExportSource, factor: float, difference: str) -> None:
    prompts = source.backbone.handcrafted(source.prompted.template)
    other = Fixed(dataclasses.replace(prompts, context=factor * prompts.context))
    prompted = PromptedCLIP(source.backbone, other, source.prompted.template, ())
    with pytest.raises(ExportError, match=f"name_encoder.onnx.*: {difference}, expected at most 1e-05"):
        compared(exported, dataclasses.replace(source, prompted=prompted))
