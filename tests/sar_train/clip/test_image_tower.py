"""The image tower with prompts against open_clip's own, whose blocks are hooked; values and gradients."""

from __future__ import annotations

import pytest
import torch
from support import full_length
from support.problems import generated_photos
from support.tiny import RESNET, tiny_backbone
from torch import Tensor

from sar_train.clip.image_tower import image_tower
from sar_train.clip.prompts import DeepPrompt, Prompts
from sar_train.errors import BackboneError, ConfigError

PIXELS = generated_photos([0, 1, 2], 0)
EMPTY = torch.zeros(0, 32)


def drawn(count: int, seed: int) -> Tensor:
    width = tiny_backbone().image_tower("tests").width
    return 0.2 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_without_prompts_it_is_open_clips() -> None:
    backbone = tiny_backbone()
    tower = backbone.image_tower("tests")
    ours = tower(Prompts(EMPTY), tower.embed(PIXELS))
    torch.testing.assert_close(ours, backbone.model.encode_image(PIXELS, normalize=True), atol=2e-6, rtol=0)
    torch.testing.assert_close(ours, full_length.image_rows(backbone, PIXELS), atol=2e-6, rtol=0)


@pytest.mark.parametrize("deep", [(), (1,)])
def test_values_and_gradients_equal_the_full_tower(deep: tuple[int, ...]) -> None:
    backbone = tiny_backbone()
    tower, results = backbone.image_tower("tests"), []
    for kind in ("ours", "theirs"):
        first = drawn(2, 1).requires_grad_()
        later = {layer: drawn(2, 10 + layer).requires_grad_() for layer in deep}
        if kind == "ours":
            insertions = {0: DeepPrompt(first, "append")} | {k: DeepPrompt(vectors) for k, vectors in later.items()}
            rows = tower(Prompts(EMPTY, image=insertions), tower.embed(PIXELS))
        else:
            rows = full_length.image_rows(backbone, PIXELS, first, later)
        (rows * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
        results.append((rows.detach(), *(leaf.grad for leaf in (first, *later.values()))))
    assert (results[0][0] - full_length.image_rows(backbone, PIXELS)).abs().max() > 1e-3
    torch.testing.assert_close(results[0][0], results[1][0], atol=2e-6, rtol=0)
    for ours, theirs in zip(results[0][1:], results[1][1:], strict=True):
        assert theirs.norm() > 1e-4
        assert (ours - theirs).norm() <= 2e-5 * theirs.norm()
    assert all(p.grad is None for p in backbone.model.parameters())


def test_patches_are_never_replaced() -> None:
    tower = tiny_backbone().image_tower("tests")
    with pytest.raises(ConfigError, match="2 vectors .*0 prompt"):
        tower(Prompts(EMPTY, image={1: DeepPrompt(drawn(2, 0))}), tower.embed(PIXELS))


def test_a_resnet_has_no_tokens_to_put_prompts_among() -> None:
    backbone = tiny_backbone(RESNET)
    assert image_tower(backbone.model.visual) is None
    assert backbone.image is None
    with pytest.raises(BackboneError, match=f"maple .*{RESNET}"):
        backbone.image_tower("maple")
