"""Stored runs on their backbone, and what they answer."""

from __future__ import annotations

import pytest
import torch
from support.problems import NOVEL
from support.tiny import tiny_backbone

from sar_train.errors import RunError
from sar_train.training.checkpoint import Run
from sar_train.training.prompted import restore


def test_an_imported_context_needs_neither_classes_nor_template() -> None:
    context = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    ready = restore(Run({"context": context}, "coop", {"context_init": "", "n_ctx": 5}), tiny_backbone())
    assert torch.equal(ready.method.context, context)
    assert ready.embed(NOVEL).shape == (5, 32)


@pytest.mark.parametrize(
    ("tensors", "fact"),
    [
        ({"context": torch.zeros(3, 32)}, r"context .*\(3, 32\)"),
        ({}, "context .*missing"),
        ({"context": torch.zeros(4, 32), "extra": torch.zeros(1)}, "extra"),
    ],
)
def test_prompts_that_do_not_fit(tensors: dict[str, torch.Tensor], fact: str) -> None:
    with pytest.raises(RunError, match=f"coop on tiny-vit: {fact}"):
        restore(Run(tensors, "coop"), tiny_backbone())
