"""What makes CoCoOp CoCoOp."""

from __future__ import annotations

import pytest
import torch
from support import full_length
from support.problems import BASE, classes, make, parameters, problem_for, prompted, started, train
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


def test_the_context_is_shifted_by_the_network() -> None:
    method = make("cocoop", reduction=4)
    assert {key: tuple(value.shape) for key, value in parameters(method).items()} == {
        "context": (4, 32),
        "network.0.weight": (8, 32),
        "network.0.bias": (8,),
        "network.2.weight": (32, 8),
        "network.2.bias": (32,),
    }
    for image in IMAGES:
        context = method.prompts(classes(), image).context
        torch.testing.assert_close(context, shifted(method, image))
        shift = context - method.context
        torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-6, rtol=0)
    assert not torch.allclose(shifted(method, IMAGES[0]), shifted(method, IMAGES[1]), atol=1e-3)


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


def test_context_and_network_are_learned() -> None:
    state = started("cocoop")
    before = parameters(state.method)
    train(state, "cocoop")
    assert [key for key, value in parameters(state.method).items() if torch.equal(value, before[key])] == []


@pytest.mark.parametrize("settings", [{"n_ctx": 0}, {"reduction": 0}])
def test_settings_are_checked(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        CoCoOpConfig(**settings)
