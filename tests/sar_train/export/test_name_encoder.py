from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.tiny import tiny_backbone

from sar_train import backbone as backbones
from sar_train.backbone import Backbone
from sar_train.export.compact import compact
from sar_train.export.name_encoder import NameEncoder, export_name_encoder
from sar_train.export.verify import open_graph
from sar_train.prompts import Prompts

NAMES = ["dog", "golden retriever", "Œuvre d'été", "a rather long name of something, with commas", "x y z", "7", "ox"]
TEMPLATES = ["{}", "a {}.", "a photo of a {}.", "a bad black and white photo of the small {} in a game", "{}, a pet."]


def padded(backbone: Backbone, prompts: Prompts, names: list[str]) -> np.ndarray:
    rows = [[*backbone.text.encode(name + prompts.suffix), backbone.text.end_token] for name in names]
    tokens = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens


def every_length(backbone: Backbone, prompts: Prompts) -> list[str]:
    room = backbone.text.room(prompts) - len(backbone.text.encode("dog" + prompts.suffix))
    return [" ".join(["dog"] * length) for length in range(1, room + 1)]


def learned(backbone: Backbone, n_ctx: int) -> Prompts:
    return Prompts(0.1 * torch.randn(n_ctx, backbone.text.width, generator=torch.Generator().manual_seed(n_ctx)))


@pytest.mark.parametrize("template", TEMPLATES)
def test_module_equals_tower_for_templates_of_every_kind(template: str) -> None:
    backbone = tiny_backbone()
    prompts = backbone.handcrafted(template)
    names = NAMES + every_length(backbone, prompts)
    with torch.no_grad():
        rows = NameEncoder(backbone.text, prompts)(torch.from_numpy(padded(backbone, prompts, names)))
    torch.testing.assert_close(rows, backbone.embed_names(names, prompts), atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_ctx", [0, 16, 72])
def test_graph_equals_tower_for_every_batch_and_every_length(n_ctx: int, tmp_path: Path) -> None:
    backbone = tiny_backbone()
    prompts = learned(backbone, n_ctx)
    path = tmp_path / "name_encoder.onnx"
    path.write_bytes(compact(export_name_encoder(backbone, prompts)).SerializeToString())
    graph, lengths = open_graph(path), every_length(backbone, prompts)
    names = (lengths + [name for name in NAMES if n_ctx < 50] + lengths * 33)[:120]
    start = 0
    for batch in (1, 2, 7, 33, len(names) - 43):
        part = names[start : start + batch]
        reference = backbone.embed_names(part, prompts).numpy()
        np.testing.assert_allclose(graph(padded(backbone, prompts, part)), reference, atol=1e-5, rtol=0)
        start += batch


def test_padding_changes_nothing(exported: Path) -> None:
    graph = open_graph(exported / "name_encoder.onnx")
    tokens = np.array([[1929, 269, 49407]])
    more = np.pad(tokens, ((0, 0), (0, 40)))
    np.testing.assert_allclose(graph(more), graph(tokens), atol=1e-6)


def test_the_end_token_alone_is_a_name_too(exported: Path) -> None:
    rows = open_graph(exported / "name_encoder.onnx")(np.array([[49407]]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_row_longer_than_the_tower_is_an_error(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "name_encoder.onnx", providers=["CPUExecutionProvider"])
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match=r"broadcast|Add"):
        session.run(None, {"tokens": np.ones((1, 78), dtype=np.int64)}, options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "sar-mini"])
def test_graph_equals_tower_for_real_architectures(name: str, tmp_path: Path) -> None:
    backbone = backbones.load(name, backbones.RANDOM)
    prompts = learned(backbone, 16)
    path = tmp_path / "name_encoder.onnx"
    path.write_bytes(compact(export_name_encoder(backbone, prompts)).SerializeToString())
    reference = backbone.embed_names(NAMES, prompts).numpy()
    np.testing.assert_allclose(open_graph(path)(padded(backbone, prompts, NAMES)), reference, atol=1e-5, rtol=0)
