from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import RESNET, VIT, tiny_backbone

from sar_train import backbone as backbones
from sar_train.backbone import Backbone
from sar_train.export.compact import compact
from sar_train.export.image_encoder import export_image_encoder
from sar_train.export.verify import open_graph


def check(backbone: Backbone, folder: Path, batches: tuple[int, ...]) -> None:
    path = folder / "image_encoder.onnx"
    path.write_bytes(compact(export_image_encoder(backbone)).SerializeToString())
    graph, size = open_graph(path), backbone.preprocess.size
    for batch in batches:
        pixels = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        rows, reference = graph(pixels.numpy()), backbone.encode_images(pixels).numpy()
        assert rows.shape == (batch, backbone.embed_dim)
        assert (rows * reference).sum(1).min() >= 0.99999
        np.testing.assert_allclose(rows, reference, atol=1e-5)


@pytest.mark.parametrize("name", [VIT, RESNET])
def test_equals_torch_for_every_batch_size(name: str, tmp_path: Path) -> None:
    check(tiny_backbone(name), tmp_path, (1, 2, 7, 33))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "sar-mini"])
def test_equals_torch_for_real_architectures(name: str, tmp_path: Path) -> None:
    check(backbones.load(name, backbones.RANDOM), tmp_path, (1, 3))
