"""Loading backbones, and what goes wrong when one cannot be loaded."""

from __future__ import annotations

import logging
from pathlib import Path

import open_clip
import pytest
import torch
from support.tiny import RESNET, VIT, tiny_backbone

from sar_train.clip import backbone
from sar_train.errors import BackboneError


def test_everything_is_frozen_and_known_by_its_digest() -> None:
    model = tiny_backbone().model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert tiny_backbone().weights_digest == backbone.load(VIT, backbone.RANDOM, seed=0).weights_digest
    assert tiny_backbone().weights_digest != tiny_backbone(seed=1).weights_digest


@pytest.mark.parametrize("name", [VIT, RESNET])
def test_images_get_unit_rows(name: str) -> None:
    model = tiny_backbone(name)
    rows = model.encode_images(torch.rand(3, 3, model.preprocess.size, model.preprocess.size))
    assert rows.shape == (3, model.embed_dim)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))


def test_weights_from_a_file_in_open_clips_format(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": tiny_backbone(seed=7).model.state_dict()}, path)
    assert backbone.load(VIT, str(path)).weights_digest == tiny_backbone(seed=7).weights_digest
    with pytest.raises(BackboneError, match="do not fit"):
        backbone.load(RESNET, str(path))


@pytest.mark.parametrize(
    ("name", "pretrained", "words"),
    [
        ("ViT-B-61", None, "ViT-B-16"),
        ("ViT-B-16", None, r"--pretrained.* laion.*, (?!openai)\w+ \(ViT-B-16-quickgelu: openai, "),
        ("ViT-B-16", "no-such-tag", "no-such-tag.* laion"),
        ("RN50x4", None, r"none \(RN50x4-quickgelu: openai\)"),
        ("ViT-B-16", "openai", "openai .*--backbone ViT-B-16-quickgelu"),  # before anything is downloaded
        ("ViT-B-16", "metaclip_400m", "metaclip_400m .*--backbone ViT-B-16-quickgelu"),
    ],
)
def test_one_clear_error(name: str, pretrained: str | None, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        backbone.load(name, pretrained)


def test_a_failed_download_is_one_line_that_ends_at_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = logging.getLogger("huggingface_hub")

    def fail(*_: object, **__: object) -> None:
        hub.getChild("utils._http").warning("Retrying in 8s [Retry 4/5].")
        hub.error("no room")
        raise RuntimeError("an error happened\n" + "elsewhere " * 30)

    monkeypatch.setattr(open_clip, "create_model", fail)
    monkeypatch.setattr(hub, "propagate", True)
    before = hub.level
    with pytest.raises(BackboneError, match=r"\(an error happened (elsewhere )+…\)") as raised:
        backbone.load("ViT-B-16", "laion2b_s34b_b88k")
    assert "\n" not in str(raised.value)
    assert caplog.messages == ["no room"]
    assert hub.level == before
