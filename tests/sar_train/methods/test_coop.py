"""What makes CoOp CoOp."""

from __future__ import annotations

import pytest
import torch
from support.problems import CLASSES
from support.tiny import tiny_backbone

from sar_train.methods.coop import CoOp, CoOpConfig


def make(config: CoOpConfig, seed: int = 0) -> CoOp:
    return CoOp(config, tiny_backbone(), CLASSES, torch.Generator().manual_seed(seed))


def test_started_from_words_it_is_zero_shot_exactly() -> None:
    backbone = tiny_backbone()
    learned = backbone.embed_names(CLASSES, make(CoOpConfig()).prompts())
    zero_shot = backbone.embed_names(CLASSES, backbone.handcrafted("a photo of a {}."))
    assert torch.equal(learned, zero_shot)


def test_a_random_context_has_the_papers_size_and_spread() -> None:
    context = make(CoOpConfig(context_init="")).context
    assert context.shape == (16, tiny_backbone().text.width)
    assert 0.017 < float(context.detach().std()) < 0.023
    assert not torch.equal(context, make(CoOpConfig(context_init=""), seed=1).context)


def test_only_the_context_is_learned() -> None:
    assert [name for name, _ in make(CoOpConfig()).named_parameters()] == ["context"]


def test_the_number_of_context_tokens_is_checked() -> None:
    with pytest.raises(ValueError, match="n_ctx"):
        CoOpConfig(n_ctx=0)
