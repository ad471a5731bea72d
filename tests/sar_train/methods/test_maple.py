"""What makes MaPLe MaPLe."""

from __future__ import annotations

import pytest
import torch
from support import full_length
from support.problems import (
    BASE,
    embed,
    make,
    setup,
    started,
    train,
)
from support.tiny import DEEP, RESNET, tiny_backbone

from sar_train.errors import BackboneError
from sar_train.methods.base import scale_depth


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
