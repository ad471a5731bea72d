"""What makes CoCoOp CoCoOp."""

from __future__ import annotations

import torch
from support import full_length
from support.problems import BASE, make, parameters, problem_for, prompted
from support.tiny import tiny_backbone
from torch import Tensor

from sar_train.methods.base import PromptMethod
from sar_train.methods.cocoop import CoCoOpConfig

IMAGES = problem_for("cocoop").features[:5, 1]


def shifted(method: PromptMethod, image: Tensor) -> Tensor:
    """The context for an image from the parameters, one number after the other."""
    p = parameters(method)
    hidden = p["network.0.weight"] @ image + p["network.0.bias"]
    hidden = torch.where(hidden > 0, hidden, torch.zeros_like(hidden))
    return p["context"] + (p["network.2.weight"] @ hidden + p["network.2.bias"])[None]


def by_hand(method: PromptMethod, images: Tensor) -> Tensor:
    backbone = tiny_backbone()
    rows = [full_length.text_rows(backbone, BASE, shifted(method, image)) @ image for image in images]
    return backbone.logit_scale * torch.stack(rows)


def test_the_inner_layer_has_a_sixteenth_of_the_width_and_the_context_starts_from_words() -> None:
    method = make("cocoop")
    assert method.network[0].out_features == 2
    assert CoCoOpConfig().reduction == 16
    assert torch.equal(method.context.detach(), tiny_backbone().text.embed_text("a photo of a"))


def test_every_photo_is_answered_by_its_own_prompt() -> None:
    method = make("cocoop", reduction=4)
    torch.testing.assert_close(prompted(method).logits(IMAGES, BASE), by_hand(method, IMAGES), atol=2e-5, rtol=0)
    assert prompted(method).logits(IMAGES[:0], BASE).shape == (0, 4)


def test_without_a_photo_the_mean_one_stands_for_all() -> None:
    mean = problem_for("cocoop").features[:, 0].mean(0)
    method = make("cocoop")
    method.mean_image.copy_(mean)
    backbone = tiny_backbone()
    rows = full_length.text_rows(backbone, BASE, shifted(method, mean))
    torch.testing.assert_close(prompted(method).embed(BASE), rows, atol=2e-6, rtol=0)
    frozen = prompted(method).logits(IMAGES, BASE, frozen=True)
    torch.testing.assert_close(frozen, backbone.logit_scale * IMAGES @ rows.T, atol=2e-5, rtol=0)
    assert torch.equal(method.state_dict()["mean_image"], mean), "a stored run needs it"
