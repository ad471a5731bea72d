"""What makes CoOp CoOp."""

from __future__ import annotations

import pytest
import torch
from support import full_length
from support.problems import (
    BASE,
    classes,
    embed,
    make,
    parameters,
    setup,
    started,
    train,
)
from support.tiny import tiny_backbone

from sar_train.errors import ConfigError


def test_only_a_context_of_the_papers_size_and_spread_is_learned() -> None:
    method = make("coop", context_init="")
    assert {name: tuple(value.shape) for name, value in parameters(method).items()} == {"context": (16, 32)}
    assert 0.017 < float(method.context.detach().std()) < 0.023
    assert not torch.equal(method.context, make("coop", setup(seed=1), context_init="").context)


def test_class_specific_contexts_start_from_words_or_apart() -> None:
    words = make("coop", class_specific=True).context.detach()
    assert torch.equal(words, tiny_backbone().text.embed_text("a photo of a").expand(4, -1, -1))
    drawn = make("coop", context_init="", n_ctx=3, class_specific=True).context.detach()
    assert drawn.shape == (4, 3, tiny_backbone().text.width)
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_class_specific_contexts_train_and_embed_the_trained_classes(position: str) -> None:
    settings = {"context_init": "", "n_ctx": 4, "position": position, "class_specific": True}
    state = train(started("coop", **settings), "coop")
    assert state.history[-1]["cross_entropy"] < state.history[0]["cross_entropy"]
    context, before = state.method.context.detach(), {"end": 4, "middle": 2, "front": 0}[position]
    theirs = full_length.text_rows(tiny_backbone(), BASE, context[:, :before], suffix_context=context[:, before:])
    torch.testing.assert_close(embed(state.method), theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("names", [("fox", "boat"), BASE[:3], BASE[::-1], (*BASE, "fox")])
def test_class_specific_contexts_have_nothing_for_other_names(names: tuple[str, ...]) -> None:
    method = make("coop", class_specific=True)
    assert not method.transfers
    assert make("coop").transfers
    with pytest.raises(ConfigError, match="trained classes"):
        method.prompts(classes(names))
