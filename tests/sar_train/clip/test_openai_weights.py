"""OpenAI's archives: read, and never silently with the wrong activation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny import RESNET, VIT, register_quick, tiny_backbone
from torch import nn

from sar_train.clip import backbone, torchscript
from sar_train.errors import BackboneError


class Archive(nn.Module):
    """Parameters under the names that OpenAI's archive has; the forward is of no use."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def openai_archive(path: Path, name: str) -> Path:
    root = Archive()
    for key, tensor in tiny_backbone(name).model.state_dict().items():
        *parents, leaf = key.split(".")
        module: nn.Module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, Archive())
            module = getattr(module, parent)
        module.register_buffer(leaf, tensor.clone())
    for key in backbone.OPENAI_KEYS:
        root.register_buffer(key, torch.tensor(32))
    torch.jit.script(root).save(path)
    return path


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """The tiny model with QuickGELU, registered under a name of its own."""
    return register_quick(tmp_path)


def test_an_archive_is_read(tmp_path: Path, quick: str) -> None:
    path = openai_archive(tmp_path / "ViT.pt", VIT)
    assert torchscript.is_torchscript(path)
    assert backbone.load(quick, str(path)).weights_digest == tiny_backbone().weights_digest


def test_gelu_is_refused_with_the_right_name(tmp_path: Path) -> None:
    path = openai_archive(tmp_path / "ViT.pt", VIT)
    with pytest.raises(BackboneError, match=f"--backbone {VIT}-quickgelu"):
        backbone.load(VIT, str(path))


def test_an_archive_of_another_model_does_not_fit(tmp_path: Path, quick: str) -> None:
    path = openai_archive(tmp_path / "RN.pt", RESNET)
    with pytest.raises(BackboneError, match="do not fit"):
        backbone.load(quick, str(path))


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("text")
    assert not torchscript.is_torchscript(tmp_path / "state.pt")
    assert not torchscript.is_torchscript(tmp_path / "text.pt")
    assert not torchscript.is_torchscript(tmp_path / "none.pt")
