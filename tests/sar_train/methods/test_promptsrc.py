"""What makes PromptSRC PromptSRC."""

from __future__ import annotations

import pytest
import torch
from support import full_length
from support.problems import (
    BASE,
    embed,
    make,
    setup,
)
from support.tiny import DEEP, tiny_backbone


def test_the_text_starts_from_words_the_rest_at_random_and_depths_are_apart() -> None:
    method = make("promptsrc", setup(model=DEEP))
    assert torch.equal(method.context.detach(), tiny_backbone(DEEP).text.embed_text("a photo of a"))
    drawn = torch.cat([vectors.detach().flatten() for vectors in (*method.text, *method.image)])
    assert 0.019 < float(drawn.std()) < 0.021
    theirs = full_length.encode_text(tiny_backbone(), [f"a photo of a {name}." for name in BASE])
    torch.testing.assert_close(embed(make("promptsrc", depth_text=1)), theirs, atol=2e-6, rtol=0)
    prompts = make("promptsrc", setup(model=DEEP), depth_text=3, depth_image=5).prompts(None)
    assert (list(prompts.text), list(prompts.image)) == ([1, 2], [0, 1, 2, 3, 4])


@pytest.mark.parametrize("epochs", [1, 5, 50])
def test_a_mean_beyond_the_last_epoch_takes_the_last(epochs: int) -> None:
    weights = make("promptsrc", mean=100.0).averaging(epochs)
    assert sum(weights) == pytest.approx(1)
    assert weights[-1] > 0.99
