"""What every registered method must do, with and without SAR; a new file in ``methods/`` is picked up by itself."""

from __future__ import annotations

import pytest
import torch
from support.problems import CLASSES, TEMPLATE, scattered
from support.tiny import tiny_backbone

from sar_train import loop
from sar_train.prompt_method import PromptMethod, Schedule, methods
from sar_train.regulariser import regularisers

SCHEDULE = Schedule(epochs=8, learning_rate=0.003, batch_size=24)
NOVEL = ("fox", "boat", "lamp", "grey stone", "bird")
every_method = pytest.mark.parametrize("name", methods.entries)
every_regulariser = pytest.mark.parametrize("regulariser", [None, *regularisers.entries])


def make(name: str) -> PromptMethod:
    kind = methods.get(name)
    return kind(kind.Config(), tiny_backbone(), CLASSES[:4], torch.Generator().manual_seed(3))


def train(name: str, regulariser: str | None) -> loop.State:
    backbone, labels = tiny_backbone(), [i % 4 for i in range(24)]
    hand = backbone.embed_names([*CLASSES[:4], *NOVEL], backbone.handcrafted(TEMPLATE))
    problem = loop.Problem(scattered(labels, 1)[:, None], torch.tensor(labels), CLASSES[:4], hand[:4])
    state = loop.start(make(name), SCHEDULE, 3)
    extra = None
    if regulariser:
        kind = regularisers.get(regulariser)
        extra = loop.Regularisation(kind(kind.Config()), NOVEL, hand)
    loop.train(backbone, problem, state, SCHEDULE, extra)
    return state


@every_method
@every_regulariser
def test_the_loss_falls_and_the_backbone_gets_no_gradient(name: str, regulariser: str | None) -> None:
    history = train(name, regulariser).history
    assert history[-1]["cross_entropy"] < history[0]["cross_entropy"]
    assert all(p.grad is None for p in tiny_backbone().model.parameters())


@every_method
@every_regulariser
def test_same_seed_same_numbers(name: str, regulariser: str | None) -> None:
    first, second = (train(name, regulariser).method.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_method
def test_any_list_of_names_gets_unit_rows(name: str) -> None:
    rows = tiny_backbone().embed_names(["never seen", *NOVEL], make(name).prompts())
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))


@every_method
def test_the_state_holds_prompts_only(name: str) -> None:
    method = make(name)
    assert (
        0
        < sum(p.numel() for p in method.parameters())
        < 0.1 * sum(p.numel() for p in tiny_backbone().model.parameters())
    )


@every_method
def test_settings_have_defaults_and_a_paper(name: str) -> None:
    kind = methods.get(name)
    assert kind.Config()
    assert "arXiv" in kind.paper
    assert kind.__doc__
