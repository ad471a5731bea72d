"""What makes DePT DePT."""

from __future__ import annotations

import pytest
import torch
from support.problems import (
    BASE,
    cross_entropy_by_hand,
    embed,
    make,
    outputs,
    parameters,
    problem,
    prompted,
    schedule,
)
from support.tiny import tiny_backbone
from torch import Tensor

from sar_train.methods.base import ForwardOutputs, PromptMethod
from sar_train.training.state import start

IMAGES = problem(1).features[:6, 0]


def random_step() -> ForwardOutputs:
    return outputs(5, 4, 32)


def filmed(method: PromptMethod) -> PromptMethod:
    """FiLM moved away from the identity, differently for image and text."""
    for i, values in enumerate((*method.scale.values(), *method.shift.values())):
        values.data += 0.3 * torch.randn(values.shape, generator=torch.Generator().manual_seed(i))
    return method


def by_hand(method: PromptMethod, kind: str, rows: Tensor) -> Tensor:
    """Scale and shift the features of length 10, then the linear layer."""
    p = parameters(method)
    features = p[f"scale.{kind}"] * (10 * rows) + p[f"shift.{kind}"]
    return torch.stack([p["linear.weight"] @ row + p["linear.bias"] for row in features])


@pytest.mark.parametrize("mix", [0.7, 0.25])
def test_the_cross_entropies_share_the_loss(mix: float) -> None:
    method, step = filmed(make("dept", mix=mix)), random_step()
    logits = torch.cat([by_hand(method, "text", step.prompted[step.labels]), by_hand(method, "image", step.images)])
    terms = {name: value.item() for name, value in method.terms(step).items()}
    assert terms == {
        "cross_entropy": pytest.approx((1 - mix) * cross_entropy_by_hand(step.logits, step.labels), rel=1e-5),
        "linear_head": pytest.approx(mix * cross_entropy_by_hand(logits, torch.cat([step.labels] * 2)), rel=1e-4),
    }


def test_on_kgcoop_the_pull_has_weight_two_and_is_not_shared() -> None:
    step = random_step()
    knowledge = float(make("dept", on="kgcoop").terms(step)["knowledge"])
    assert knowledge == pytest.approx(2 * (1 - float((step.prompted * step.handcrafted).sum(1).mean())), rel=1e-5)


def test_the_head_is_film_and_linear_layer_in_one() -> None:
    method = filmed(make("dept"))
    head = method.head()
    torch.testing.assert_close(IMAGES @ head.weight.T + head.bias, by_hand(method, "image", IMAGES))
    assert head.mix == 0.7
    assert not head.weight.requires_grad
    assert not head.bias.requires_grad


def test_trained_classes_are_answered_by_both() -> None:
    method = filmed(make("dept"))
    text = tiny_backbone().logit_scale * IMAGES @ embed(method).detach().T
    expected = 0.3 * text + 0.7 * by_hand(method, "image", IMAGES)
    torch.testing.assert_close(prompted(method).logits(IMAGES, BASE), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(prompted(method).logits(IMAGES, BASE, text_only=True), text, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("names", [BASE[::-1], BASE[:3], (*BASE, "fox"), ("fox", "boat")])
def test_any_other_list_is_answered_by_the_text_alone(names: tuple[str, ...]) -> None:
    method = filmed(make("dept"))
    text = tiny_backbone().logit_scale * IMAGES @ embed(method, names).detach().T
    torch.testing.assert_close(prompted(method).logits(IMAGES, names), text, atol=1e-4, rtol=1e-5)


def test_film_and_head_learn_at_a_rate_of_their_own() -> None:
    method = make("dept")
    (base, rate), (new, new_rate) = method.groups(1e-4)
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    assert rate == 1e-4
    assert new_rate == pytest.approx(6.5 * 3.5e-3)
    assert [names[id(parameter)] for parameter in base] == ["base.context"]
    assert {names[id(parameter)] for parameter in new} == {*names.values()} - {"base.context"}
    rates = [group["lr"] for group in start(method, schedule("dept", learning_rate=1e-4), 1).optimiser.param_groups]
    assert rates == [rate, new_rate]


def test_it_builds_on_the_methods_as_the_paper_runs_them() -> None:
    on_coop, on_kgcoop = make("dept"), make("dept", on="kgcoop")
    assert on_coop.base.context.shape == (16, 32)
    assert 0.015 < float(on_coop.base.context.detach().std()) < 0.025
    assert torch.equal(on_kgcoop.base.context.detach(), tiny_backbone().text.embed_text("a photo of a"))
    for method in (on_coop, on_kgcoop):
        assert torch.equal(embed(method), embed(method.base))
        inherited = [name for name in parameters(method) if name.startswith("base.")]
        assert inherited == [f"base.{name}" for name in parameters(method.base)]
