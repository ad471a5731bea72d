"""Stored runs on their backbone, and what they answer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.problems import BASE, NOVEL, embed, generated_photos, make, prompted, setup
from support.tiny import DEEP, tiny_backbone

from sar_train.errors import ConfigError, RunError
from sar_train.methods.base import PromptMethod
from sar_train.training import prompted as module
from sar_train.training.checkpoint import Run
from sar_train.training.prompted import restore


def stored(method: PromptMethod, name: str, **settings: object) -> Run:
    return Run(method.state_dict(), name, settings, template="a photo of a {}.", class_names=BASE)


def test_a_template_other_than_the_usual_reaches_the_method() -> None:
    template = "a photo of a {}, a type of pet."
    method = make("tcp", setup(template=template))
    run = dataclasses.replace(stored(method, "tcp"), template=template)
    assert torch.equal(restore(run, tiny_backbone()).embed(NOVEL), embed(method, NOVEL, template))


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


def test_prompts_of_another_backbone_do_not_fit() -> None:
    with pytest.raises(RunError, match="maple on tiny-deep"):
        restore(stored(make("maple"), "maple"), tiny_backbone(DEEP))


def test_unknown_methods_and_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="'coop'"):
        restore(Run({}, "cop"), tiny_backbone())
    with pytest.raises(ConfigError, match="'n_ctxx'"):
        restore(Run({}, "coop", {"n_ctxx": 1}), tiny_backbone())


@pytest.mark.parametrize("settings", [{"class_specific": True}, {}])
def test_chunks_change_nothing(settings: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prompted(make("coop", **settings))
    whole = ready.embed(BASE)
    monkeypatch.setattr(module, "CHUNK", 3)
    torch.testing.assert_close(ready.embed(BASE), whole, atol=1e-6, rtol=0)


def test_nothing_is_answered_with_a_gradient() -> None:
    ready, images = prompted(make("maple")), generated_photos([0, 1], 0)
    rows = ready.encode_images(images)
    assert not rows.requires_grad
    assert not ready.logits(rows, BASE).requires_grad
    assert ready.image_prompts() is not None
    assert prompted(make("coop")).image_prompts() is None
