from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.exported import moved, reference_images
from support.tiny import RESNET, VIT, shallow, tiny_backbone

from benchmarks.throughput.flops import flops_of_open_clip, flops_per_image
from sar_infer.encoders.encoders import Encoder
from sar_train.clip import backbone as backbones
from sar_train.clip import mini
from sar_train.export.graph import compact
from sar_train.export.image_encoder import export_image_encoder
from sar_train.methods.base import Setup, methods
from sar_train.training.prompted import PromptedCLIP, handcrafted


def check(prompted: PromptedCLIP, folder: Path, batches: tuple[int, ...]) -> None:
    path = folder / "image_encoder.onnx"
    path.write_bytes(compact(export_image_encoder(prompted)).SerializeToString())
    graph, size = Encoder(path, prompted.backbone.embed_dim, "cpu"), prompted.backbone.preprocess.size
    for batch in batches:
        pixels = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        rows, reference = graph.run("pixels", pixels.numpy()), reference_images(prompted, pixels).numpy()
        assert rows.shape == (batch, prompted.backbone.embed_dim)
        assert (rows * reference).sum(1).min() >= 0.99999
        np.testing.assert_allclose(rows, reference, atol=1e-5)


@pytest.mark.parametrize("name", [VIT, RESNET])
def test_equals_torch_for_every_batch_size(name: str, tmp_path: Path) -> None:
    check(handcrafted(tiny_backbone(name), "a {}."), tmp_path, (1, 2, 7, 33))


def test_image_prompts_are_inside(tmp_path: Path) -> None:
    check(moved("promptsrc"), tmp_path, (1, 2, 7, 33))


def test_the_last_layer_of_a_vision_transformer_computes_the_class_token_alone(tmp_path: Path) -> None:
    backbone, path = tiny_backbone(VIT), tmp_path / "image_encoder.onnx"
    onnx.save(export_image_encoder(handcrafted(backbone, "a {}.")), path)
    visual = backbone.model.visual
    tokens, width = visual.positional_embedding.shape
    spared = 2 * (tokens - 1) * width * (width + 8 * width)  # projection behind attention, and the MLP
    mixing = 2 * 2 * (tokens - 1) * tokens * width  # scores, and sums of values
    assert flops_of_open_clip(VIT, backbones.RANDOM) - flops_per_image(path) == spared + mixing


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["ViT-B-32", "RN50"])
def test_equals_torch_for_real_architectures(name: str, tmp_path: Path) -> None:
    backbone = backbones.load(shallow(name, tmp_path), backbones.RANDOM)
    check(handcrafted(backbone, "a {}."), tmp_path, (1, 3))


@pytest.mark.nightly
@pytest.mark.parametrize(("method", "name"), [("maple", "sar-mini-vit"), ("promptsrc", "ViT-B-32")])
def test_image_prompts_in_real_vision_transformers(method: str, name: str, tmp_path: Path) -> None:
    model = name if name in mini.NAMES else shallow(name, tmp_path)
    kind, backbone = methods.get(method), backbones.load(model, backbones.RANDOM)
    made = kind(kind.Config(), Setup(backbone, ("cat",), "a {}.", torch.Generator().manual_seed(0)))
    check(PromptedCLIP(backbone, made.requires_grad_(requires_grad=False), "a {}.", ("cat",)), tmp_path, (1, 3))
