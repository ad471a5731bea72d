"""How sar-mini is stored."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from sar_train.clip import mini
from sar_train.clip.mini import storage
from sar_train.errors import BackboneError


def test_a_model_comes_back(tmp_path: Path) -> None:
    mini.register()
    torch.manual_seed(0)
    models = [open_clip.create_model(mini.NAME, force_preprocess_cfg=mini.PREPROCESS) for _ in range(2)]
    storage.save(models[0], tmp_path / "weights.safetensors", {"recipe": "none"})
    storage.load(models[1], tmp_path / "weights.safetensors")
    first, second = (model.state_dict() for model in models)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-3, rtol=1e-2, msg=name)
    stored = load_file(tmp_path / "weights.safetensors")
    assert stored["token_embedding.weight.int8"].dtype == torch.int8
    assert stored["visual.head.proj.weight"].dtype == torch.float16
    for load in (storage.load, storage.load_shared):
        with pytest.raises(BackboneError, match=r"none\.safetensors"):
            load(models[1], tmp_path / "none.safetensors")
