"""What makes MaPLe MaPLe."""

from __future__ import annotations

import pytest
import torch
from support import full_length
from support.problems import (
    BASE,
    embed,
    generated_photos,
    make,
    parameters,
    prompted,
    setup,
    started,
    train,
)
from support.tiny import DEEP, RESNET, VIT, tiny_backbone
from torch import Tensor

from sar_train.errors import BackboneError
from sar_train.methods.base import PromptMethod, scale_depth

PIXELS = generated_photos([0, 1, 2], 5)


def images_of(method: PromptMethod) -> list[Tensor]:
    """The image prompts of each layer from the parameters: W v + b."""
    p = parameters(method)
    deep = range(len(method.deep))
    return [
        p["context"] @ p["project.weight"].T + p["project.bias"],
        *[p[f"deep.{k}"] @ p[f"project_deep.{k}.weight"].T + p[f"project_deep.{k}.bias"] for k in deep],
    ]


def scrambled(method: PromptMethod) -> PromptMethod:
    """All parameters moved apart, so that no two are equal by accident."""
    rng = torch.Generator().manual_seed(0)
    for parameter in method.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return method


@pytest.mark.parametrize("model", [VIT, DEEP])
def test_both_towers_equal_full_length_ones_with_hooks(model: str) -> None:
    backbone, method = tiny_backbone(model), scrambled(make("maple", setup(model=model)))
    layers = len(method.deep)
    assert layers == {VIT: 1, DEEP: 8}[model]
    p = parameters(method)
    words = backbone.model.token_embedding(torch.tensor(full_length.tokenizer().encode("a photo of a")))
    replaced = {k + 1: p[f"deep.{k}"] for k in range(layers)}
    theirs = full_length.text_rows(backbone, BASE, torch.cat([p["context"], words[2:]]), replace=replaced)
    torch.testing.assert_close(embed(method, model=model), theirs, atol=3e-6, rtol=0)
    first, *deeper = images_of(method)
    theirs = full_length.image_rows(backbone, PIXELS, first, dict(enumerate(deeper, 1)))
    ours = prompted(method, model=model).encode_images(PIXELS)
    torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=0)


def test_the_first_words_are_learned_and_the_others_stay() -> None:
    method, words = make("maple"), tiny_backbone().text.embed_text("a photo of a")
    assert torch.equal(method.context.detach(), words[:2])
    train(state := started("maple"), "maple")
    context = state.method.prompts(None).context.detach()
    assert context.shape == (4, 32)
    assert torch.equal(context[2:], words[2:])
    assert not torch.equal(context[:2], words[:2])
    assert "rest" not in state.method.state_dict(), "the run need not hold what is not learned"
    theirs = full_length.encode_text(tiny_backbone(), [f"a photo of a {name}." for name in BASE])
    torch.testing.assert_close(embed(make("maple", depth=1)), theirs, atol=2e-6, rtol=0)


def test_depths_are_given_for_twelve_layers() -> None:
    depths = {(9, 12): 9, (9, 4): 3, (9, 3): 2, (9, 2): 2, (3, 4): 1, (1, 3): 1, (12, 4): 4, (9, 24): 18}
    assert {pair: scale_depth(*pair) for pair in depths} == depths


def test_the_maps_of_deeper_layers_start_equal_and_are_trained_apart() -> None:
    first, *others = make("maple", setup(model=DEEP)).project_deep
    for other in others:
        assert other.weight is not first.weight
        assert torch.equal(other.weight, first.weight)
        assert torch.equal(other.bias, first.bias)
    sets = make("maple", setup(model=DEEP)).deep
    assert 0.01 < float(torch.cat(list(sets)).detach().std()) < 0.03
    assert not torch.equal(sets[0], sets[1])


def test_a_resnet_is_refused() -> None:
    with pytest.raises(BackboneError, match=f"maple .*{RESNET}"):
        make("maple", setup(model=RESNET))
