"""What makes KgCoOp KgCoOp."""

from __future__ import annotations

import pytest
import torch
from support import full_length
from support.problems import BASE, cross_entropy_by_hand, embed, make, outputs, parameters
from support.tiny import tiny_backbone


@pytest.mark.parametrize("settings", [{}, {"weight": 4.0}, {"weight": 0.0}])
def test_the_pull_is_eight_times_one_minus_the_mean_cosine(settings: dict[str, float]) -> None:
    step = outputs()
    terms = make("kgcoop", **settings).terms(step)
    assert terms.keys() == {"cross_entropy", "knowledge"}
    cosines = [
        sum(a * b for a, b in zip(w, v, strict=True))
        for w, v in zip(step.prompted.tolist(), step.handcrafted.tolist(), strict=True)
    ]
    weight = settings.get("weight", 8.0)
    assert float(terms["knowledge"]) == pytest.approx(weight * (1 - sum(cosines) / 3), rel=1e-5)
    assert float(terms["cross_entropy"]) == pytest.approx(cross_entropy_by_hand(step.logits, step.labels), rel=1e-5)


def test_the_prompt_is_coops_and_starts_at_zero_shot() -> None:
    method = make("kgcoop")
    assert parameters(method).keys() == {"context"}
    theirs = full_length.encode_text(tiny_backbone(), [f"a photo of a {name}." for name in BASE])
    torch.testing.assert_close(embed(method), theirs, atol=2e-6, rtol=0)
    assert torch.equal(embed(method), embed(make("coop")))
