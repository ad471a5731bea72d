"""What makes DePT DePT."""

from __future__ import annotations

import pytest
import torch
from support.problems import (
    BASE,
    embed,
    make,
    parameters,
    problem,
    prompted,
)
from support.tiny import tiny_backbone

from sar_train.methods.base import PromptMethod

IMAGES = problem(1).features[:6, 0]


def filmed(method: PromptMethod) -> PromptMethod:
    """FiLM moved away from the identity, differently for image and text."""
    for i, values in enumerate((*method.scale.values(), *method.shift.values())):
        values.data += 0.3 * torch.randn(values.shape, generator=torch.Generator().manual_seed(i))
    return method


@pytest.mark.parametrize("names", [BASE[::-1], BASE[:3], (*BASE, "fox"), ("fox", "boat")])
def test_any_other_list_is_answered_by_the_text_alone(names: tuple[str, ...]) -> None:
    method = filmed(make("dept"))
    text = tiny_backbone().logit_scale * IMAGES @ embed(method, names).detach().T
    torch.testing.assert_close(prompted(method).logits(IMAGES, names), text, atol=1e-4, rtol=1e-5)


def test_it_builds_on_the_methods_as_the_paper_runs_them() -> None:
    on_coop, on_kgcoop = make("dept"), make("dept", on="kgcoop")
    assert on_coop.base.context.shape == (16, 32)
    assert 0.015 < float(on_coop.base.context.detach().std()) < 0.025
    assert torch.equal(on_kgcoop.base.context.detach(), tiny_backbone().text.embed_text("a photo of a"))
    for method in (on_coop, on_kgcoop):
        assert torch.equal(embed(method), embed(method.base))
        inherited = [name for name in parameters(method) if name.startswith("base.")]
        assert inherited == [f"base.{name}" for name in parameters(method.base)]
