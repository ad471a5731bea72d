"""OpenAI's archives: read by their digests, and never silently with the wrong activation; others are not opened."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.tiny import RESNET, VIT, register_quick, tiny_backbone
from torch import nn

from sar_train.clip import backbone, openai_weights
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
    for key in openai_weights.NOT_WEIGHTS:
        root.register_buffer(key, torch.tensor(32))
    torch.jit.script(root).save(path)
    return path


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """The tiny model with QuickGELU, registered under a name of its own."""
    return register_quick(tmp_path)


def publish(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Count an archive as one of OpenAI's, and return its path."""
    digests = openai_weights.published_digests() | {hashlib.sha256(path.read_bytes()).hexdigest()}
    monkeypatch.setattr(openai_weights, "published_digests", lambda: digests)
    return str(path)


def test_the_digests_are_those_of_openai() -> None:
    """Compared with the addresses in ``clip.py`` of openai/CLIP, by their first digits."""
    first = {"afeb0e10", "8fa8567b", "7e526bd1", "52378b40", "be1cfb55", "40d36571", "5806e77c", "b8cca3fd", "3035c92b"}
    digests = openai_weights.published_digests()
    assert {digest[:8] for digest in digests} == first
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)


def test_a_published_archive_is_read_where_it_fits(tmp_path: Path, quick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = publish(openai_archive(tmp_path / "ViT.pt", VIT), monkeypatch)
    assert backbone.load(quick, path).weights_digest == tiny_backbone().weights_digest
    with pytest.raises(BackboneError, match=f"--backbone {VIT}-quickgelu"):
        backbone.load(VIT, path)
    with pytest.raises(BackboneError, match="do not fit"):
        backbone.load(quick, publish(openai_archive(tmp_path / "RN.pt", RESNET), monkeypatch))


def test_another_archive_is_refused_with_the_line_that_converts_it(tmp_path: Path, quick: str) -> None:
    path = openai_archive(tmp_path / "ViT.pt", VIT)
    with pytest.raises(BackboneError, match="none of OpenAI's files") as refused:
        backbone.load(quick, str(path))
    (line,) = re.findall(r'python -c "(.*)" and pass --pretrained ', str(refused.value))
    subprocess.run([sys.executable, "-c", line], check=True, stderr=subprocess.DEVNULL)
    converted = str(refused.value).rpartition(" ")[2]
    assert backbone.load(quick, converted).weights_digest == tiny_backbone().weights_digest


class Attack(nn.Module):
    """Code of its own runs when ``torch.jit.load`` restores it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.training = False

    @torch.jit.export
    def __getstate__(self):
        return (self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight = state[0]
        self.training = state[1]
        torch.save(state[0], "ran")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight


def test_the_code_of_an_archive_is_not_run(tmp_path: Path, quick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.script(Attack()).save(tmp_path / "attack.pt")
    with pytest.raises(BackboneError, match="none of OpenAI's files"):
        backbone.load(quick, str(tmp_path / "attack.pt"))
    assert not (tmp_path / "ran").exists()
    torch.jit.load(tmp_path / "attack.pt")
    assert (tmp_path / "ran").exists()  # it would have


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("text")
    for name in ("state.pt", "text.pt", "none.pt"):
        assert not openai_weights.is_torchscript(tmp_path / name)
